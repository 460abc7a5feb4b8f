//! Finds the value that counts for one setting, and remembers where it came from.

use std::collections::BTreeMap;

/// The environment, as the caller saw it.
pub type Environment = BTreeMap<String, String>;

/// A value and its origin, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) origin: String,
    pub(super) value: String,
    pub(super) level: Level,
}

/// Where a value came from, weakest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Option,
    Environment,
    File,
}

/// Option, variables (strongest first) and key of one setting.
pub(super) struct Places<'a> {
    pub(super) option: Option<(&'static str, &'a str)>,
    pub(super) variables: &'a [&'static str],
    pub(super) key: Option<(&'static str, &'a str)>,
}

impl Places<'_> {
    /// The value that counts. An empty variable counts as not set, as OpenTelemetry has it.
    pub(super) fn find(&self, env: &Environment) -> Option<Said> {
        let said =
            |level, origin: &str, value: &str| Said { level, origin: origin.into(), value: value.into() };
        if let Some((name, value)) = self.option {
            return Some(said(Level::Option, name, value));
        }
        let variable = self.variables.iter().find_map(|name| Some((*name, variable(env, name)?)));
        if let Some((name, value)) = variable {
            return Some(said(Level::Environment, name, value));
        }
        self.key.map(|(name, value)| said(Level::File, &format!("{name} in the configuration file"), value))
    }
}

/// A variable that is set and not empty.
pub(super) fn variable<'a>(env: &'a Environment, name: &str) -> Option<&'a str> {
    env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
}
