//! A remote client against TLS servers on the loopback interface.
