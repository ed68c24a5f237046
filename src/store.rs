//! The `Store` contract and its backends. Only this room knows a database.
