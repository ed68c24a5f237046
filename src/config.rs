//! `ServerConfig` and `AgentConfig`: defaults, file, environment and flags merged once, with clear errors.
