//! How the program ends when it cannot do what was asked: a status and one line.

use std::fmt;
use std::process::ExitCode;

/// Why the program ends early. Its text is one line that says what to do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for is wrong: arguments or configuration. Status 2.
    Usage(String),
    /// What was asked for cannot be done here and now. Status 1.
    Runtime(String),
}

impl Failure {
    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        Self::Usage(one_line(&what.to_string()))
    }

    pub(crate) fn runtime(what: impl fmt::Display) -> Self {
        Self::Runtime(one_line(&what.to_string()))
    }

    /// The exit status.
    pub(crate) fn status(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Runtime(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Runtime(text)) = self;
        f.write_str(text)
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_one_line() {
        assert_eq!(Failure::usage("a\n  b\n").to_string(), "a b");
    }
}
