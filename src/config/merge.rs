//! Puts what the file says in front of the command line, so that one parser checks both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::{ConfigError, DEFAULT_FILE, FileValues};

/// Which subcommand reads the file: a key that only the other one knows is skipped, so that servers and agents may
/// share a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `kube-lite server`.
    Server,
    /// `kube-lite agent`.
    Agent,
    /// `kube-lite snapshot`.
    Snapshot,
    /// `kube-lite migrate`.
    Migrate,
    /// `kube-lite secrets-encrypt`.
    SecretsEncrypt,
}

impl Role {
    /// The subcommand's name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Agent => "agent",
            Role::Snapshot => "snapshot",
            Role::Migrate => "migrate",
            Role::SecretsEncrypt => "secrets-encrypt",
        }
    }

    /// The roles whose keys may stand in the same file.
    fn others(self) -> impl Iterator<Item = Role> {
        [Role::Server, Role::Agent].into_iter().filter(move |role| *role != self)
    }
}

/// The arguments to parse in the end: the program's name and subcommand, the file's settings for every flag that
/// neither the command line nor the environment set, then the arguments as given.
///
/// # Errors
/// The file cannot be read, or names a flag that does not exist.
pub fn merged_arguments(
    command: &Command,
    matches: &ArgMatches,
    role: Role,
    given: Vec<OsString>,
) -> Result<Vec<OsString>, ConfigError> {
    let named = matches.get_one::<PathBuf>("config");
    let path = named.map_or(Path::new(DEFAULT_FILE), PathBuf::as_path);
    let required = matches.value_source("config").is_some_and(|source| source != ValueSource::DefaultValue);
    let file = FileValues::read(path, required)?;
    let flags = from_file(command, matches, role, &file)?;
    let position = given.iter().position(|argument| argument == role.name()).map_or(given.len(), |at| at + 1);
    let (head, tail) = given.split_at(position);
    Ok(head.iter().cloned().chain(flags).chain(tail.iter().cloned()).collect())
}

fn from_file(
    command: &Command,
    matches: &ArgMatches,
    role: Role,
    file: &FileValues,
) -> Result<Vec<OsString>, ConfigError> {
    let mut flags = Vec::new();
    for (key, values) in file.iter() {
        let Some(arg) = find(command, role, key) else {
            if role.others().any(|other| find(command, other, key).is_some()) {
                continue;
            }
            let why = format!("there is no flag --{key}; `kube-lite {} --help` lists them", role.name());
            return Err(ConfigError::File { path: file.origin(key).to_owned(), why });
        };
        let set = matches.value_source(arg.get_id().as_str());
        if matches!(set, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let switch = !arg.get_action().takes_values();
        for value in values {
            match (switch, value.as_str()) {
                (true, "true") => flags.push(format!("--{key}").into()),
                (true, "false") => {}
                (true, other) => {
                    let why = format!("{key}: {other:?} is neither true nor false");
                    return Err(ConfigError::File { path: file.origin(key).to_owned(), why });
                }
                (false, value) => flags.push(format!("--{key}={value}").into()),
            }
        }
    }
    Ok(flags)
}

fn find<'a>(command: &'a Command, role: Role, key: &str) -> Option<&'a clap::Arg> {
    let own = command.find_subcommand(role.name())?.get_arguments();
    own.chain(command.get_arguments()).find(|arg| arg.get_long() == Some(key))
}
