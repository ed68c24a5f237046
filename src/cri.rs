//! The client of the container runtime interface (CRI v1) and its fake.
