//! The HTTP side of the API server: TLS, request info, authentication, authorization, handlers, discovery, OpenAPI and streaming.
