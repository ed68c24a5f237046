//! The API server as its clients see it: in process over a temporary store, over TLS on loopback, and with the real
//! `kubectl`.

mod access;
mod formats;
mod join;
mod kubectl;
mod nodes;
mod server;
mod tls;
mod verbs;
