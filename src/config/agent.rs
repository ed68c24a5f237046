//! `kube-lite agent`: its flags.

use std::path::PathBuf;

use clap::Args;

use super::ConfigError;
use super::node::NodeConfig;

/// Everything that `kube-lite agent` can be told.
#[derive(Args, Debug, Clone)]
pub struct AgentConfig {
    /// Server to join
    #[arg(long, short = 's', env = "KUBE_LITE_URL", value_name = "URL")]
    pub server: Option<String>,

    /// Secret to join with, as in server/node-token of the server
    #[arg(long, short = 't', env = "KUBE_LITE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,

    /// File that holds the token
    #[arg(long, env = "KUBE_LITE_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,

    /// The node.
    #[command(flatten)]
    pub node: NodeConfig,
}

impl AgentConfig {
    /// Checks what one flag alone cannot show, and fills the token from its file.
    pub(super) fn check(mut self) -> Result<Self, ConfigError> {
        self.token = super::secret("token-file", self.token.take(), self.token_file.as_deref())?;
        match self.server.as_deref() {
            None | Some("") => {
                return Err(ConfigError::Missing { flag: "server", example: "https://server:6443" });
            }
            Some(url) if !url.starts_with("https://") => {
                return Err(ConfigError::value("server", url, "it must start with https://".to_owned()));
            }
            Some(_) => {}
        }
        if self.token.is_none() {
            return Err(ConfigError::Missing { flag: "token", example: "<the server's server/node-token>" });
        }
        self.node = self.node.check()?;
        Ok(self)
    }

    /// The server's URL, which `check` has found present.
    pub fn server_url(&self) -> &str {
        self.server.as_deref().unwrap_or_default().trim_end_matches('/')
    }

    /// The token, which `check` has found present.
    pub fn join_token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }
}
