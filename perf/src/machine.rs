//! What a figure was made on: the head of each report.

use serde_json::{Value, json};

/// The machine, and the build.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The commit that this program was built from.
    pub commit: &'static str,
    /// The processor, as it names itself, and how many CPUs there are.
    pub cpu: String,
    /// The kernel's version.
    pub kernel: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let uname = rustix::system::uname();
        Self {
            commit: env!("POLDER_COMMIT"),
            cpu: format!("{}, {cpus} CPUs", processor(&text)),
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
        }
    }

    /// In one line.
    #[must_use]
    pub fn text(&self) -> String {
        format!("commit {}; {}; {}", self.commit, self.cpu, self.kernel)
    }

    /// As an object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"commit": self.commit, "cpu": self.cpu, "kernel": self.kernel})
    }
}

/// The first processor of /proc/cpuinfo: its name, and family and model, which tell more where a hypervisor hides the name.
fn processor(cpuinfo: &str) -> String {
    let field = |name: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.trim() == name).map_or("?", |(_, value)| value.trim())
    };
    format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_named_by_the_first_lines() {
        let text = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: A CPU\n\nprocessor\t: 1\n";
        assert_eq!(processor(text), "A CPU (family 6, model 207)");
        assert_eq!(processor(""), "? (family ?, model ?)");
    }

    #[test]
    fn this_machine_has_a_name() {
        let here = Machine::here();
        assert!(here.text().contains(here.commit) && here.text().contains("CPUs"), "{}", here.text());
        assert_eq!(here.json()["commit"], here.commit);
    }
}
