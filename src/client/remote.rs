//! A client of API servers on other hosts: mutual TLS, HTTP/2, several servers with failover.
