//! The configuration file.
//!
//! ```toml
//! control = "/run/polder/control.sock"
//! sandbox = "auto"        # what rights are given up: strict, off
//!
//! [switch]
//! mac_ageing_s = 300      # an address not heard of for so long is forgotten
//! mac_table = 65536       # addresses there can be
//! mac_quota = 32768       # addresses that one port may have learned
//! poll = "adaptive"       # lcores that find nothing sleep a little; "always": never
//!
//! [memory]
//! size = "64M"
//! hugepages = "auto"      # 1g, 2m, off
//!
//! [[lcore]]
//! cpu = 1
//!
//! [[port]]
//! name = "vm1"
//! spec = "vhost-user:/run/polder/vm1.sock,queues=2"
//! ```

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{Hugepages, MemorySize, PortName, PortSpec, Sandbox, SwitchSetting};
use crate::failure::Failure;

/// Largest file read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The file as it stands.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileForm {
    /// Control socket.
    pub(crate) control: Option<PathBuf>,
    pub(crate) sandbox: Option<Sandbox>,
    #[serde(default)]
    pub(crate) switch: SwitchSetting,
    #[serde(default)]
    pub(crate) memory: MemoryForm,
    #[serde(default)]
    pub(crate) lcore: Vec<LcoreForm>,
    #[serde(default)]
    pub(crate) port: Vec<PortForm>,
}

/// `[memory]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemoryForm {
    pub(crate) size: Option<MemorySize>,
    pub(crate) hugepages: Option<Hugepages>,
}

/// `[[lcore]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LcoreForm {
    pub(crate) cpu: Spanned<usize>,
}

/// `[[port]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PortForm {
    pub(crate) name: Spanned<PortName>,
    pub(crate) spec: Spanned<PortSpec>,
}

/// A file's text and name, to name lines in.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Reads the file whole.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable =
            |e: std::io::Error| Failure::usage(format!("configuration file {}: {e}", path.display()));
        let mut text = String::new();
        File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_string(&mut text)).map_err(unreadable)?;
        if text.len() as u64 > MAX_FILE {
            return Err(Failure::usage(format!(
                "configuration file {} is larger than 1 MiB",
                path.display()
            )));
        }
        Ok(Self { path: path.to_owned(), text })
    }

    /// What it says.
    pub(crate) fn parse(&self) -> Result<FileForm, Failure> {
        toml::from_str(&self.text).map_err(|e| self.wrong_at(e.span().map_or(0, |s| s.start), e.message()))
    }

    /// A failure that names the line of a byte of the file.
    pub(crate) fn wrong_at(&self, at: usize, what: impl std::fmt::Display) -> Failure {
        let line = 1 + self.text.bytes().take(at).filter(|b| *b == b'\n').count();
        Failure::usage(format!("{}:{line}: {what}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FileForm, String> {
        let source = Source { path: "f.toml".into(), text: text.to_owned() };
        source.parse().map_err(|e| e.to_string())
    }

    #[test]
    fn all_that_can_be_said() {
        let text = "control = '/c'\nsandbox = 'strict'\n[switch]\nmac_ageing_s = 5\n[memory]\nsize = '8M'\nhugepages = '2m'\n\
                    [[lcore]]\ncpu = 0\n[[port]]\nname = 'a'\nspec = 'null'\n[[port]]\nname = 'b'\nspec = 'tap:t0'\n";
        let form = parse(text).unwrap();
        assert_eq!((form.port.len(), form.lcore.len()), (2, 1));
        assert_eq!(form.sandbox, Some(Sandbox::Strict));
        assert_eq!(form.memory.hugepages, Some(Hugepages::Mib));
        assert!(parse("").unwrap().port.is_empty());
    }

    #[test]
    fn errors_name_the_line() {
        for (line, text) in [
            (2, "[switch]\nmac_aging = 3\n"),
            (1, "nonsense = 3\n"),
            (3, "\n[[port]]\nname = 'a b'\nspec = 'null'\n"),
            (4, "\n[[port]]\nname = 'a'\nspec = ':x'\n"),
            (2, "\n[[port]]\nname = 'a'\n"),
            (3, "[memory]\n\nsize = '3'\n"),
            (2, "[memory]\nhugepages = '4k'\n"),
            (2, "[[lcore]]\ncpu = -1\n"),
            (1, "sandbox = 'maybe'\n"),
            (2, "[switch]\nmac_ageing_s = 'long'\n"),
            (3, "[[port]]\nname = 'a'\nspec = 'nul\n"),
            (1, "[[port]\n"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("f.toml:{line}: ")), "{text:?}: {error}");
            assert!(!error.contains('\n'));
        }
    }
}
