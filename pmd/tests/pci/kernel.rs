//! A thread that does in a made-up sysfs what the kernel does in the real one when its files are written.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::tree::{Card, Tree};

/// The thread; it ends with this.
pub(crate) struct Kernel {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    /// Starts it. Drivers named in `failing` take no function.
    pub(crate) fn start(tree: &Tree, failing: &'static [&'static str]) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (sys, ended) = (tree.sys(), Arc::clone(&ends));
        let work = move || {
            while !ended.load(Ordering::Relaxed) {
                turn(&sys, failing);
                thread::sleep(Duration::from_millis(1));
            }
        };
        Self { ends, thread: Some(thread::spawn(work)) }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            ended.is_some_and(|result| result.is_ok()) || thread::panicking(),
            "the made-up kernel panicked"
        );
    }
}

fn turn(sys: &Path, failing: &[&str]) {
    for driver in names(&sys.join("bus/pci/drivers")) {
        if let Some(bdf) = taken(&sys.join("bus/pci/drivers").join(driver).join("unbind")) {
            let _ = fs::remove_file(device(sys, &bdf).join("driver"));
        }
    }
    if let Some(bdf) = taken(&sys.join("bus/pci/drivers_probe")) {
        probe(sys, &bdf, failing);
    }
    for pf in names(&sys.join("bus/pci/devices")) {
        count_vfs(sys, &pf, failing);
    }
}

fn probe(sys: &Path, bdf: &str, failing: &[&str]) {
    let dir = device(sys, bdf);
    let laid_down = text(&dir.join("driver_override")).filter(|name| name != "(null)");
    let driver = laid_down.or_else(|| text(&dir.join("known_to")));
    let Some(driver) = driver.filter(|name| !failing.contains(&name.as_str())) else { return };
    let target = format!("../../drivers/{driver}");
    if !dir.join("driver").exists() && dir.join(&target).exists() {
        std::os::unix::fs::symlink(target, dir.join("driver")).expect("a link");
    }
}

/// Makes VFs come and go until there are as many as `sriov_numvfs` says.
fn count_vfs(sys: &Path, pf: &str, failing: &[&str]) {
    let dir = device(sys, pf);
    let Some(wanted) = text(&dir.join("sriov_numvfs")).and_then(|n| n.parse::<u16>().ok()) else { return };
    let there =
        (0..).take_while(|n| dir.join(format!("virtfn{n}")).symlink_metadata().is_ok()).count() as u16;
    let pf = Card::at(sys, pf);
    if wanted == 0 {
        (0..there).for_each(|n| remove_vf(sys, &dir.join(format!("virtfn{n}"))));
    }
    if there == 0 && !failing.contains(&"sriov") {
        // Linked when all are made: whoever waits for the last link finds everything done.
        let vfs: Vec<Card> = (0..wanted).map(|n| make_vf(sys, &dir, n)).collect();
        vfs.iter().zip(0..).for_each(|(vf, n)| pf.link_vf(n, vf));
    }
}

fn make_vf(sys: &Path, pf: &Path, n: u16) -> Card {
    let [vendor, device] = ["vendor", "sriov_vf_device"].map(|file| text(&pf.join(file)).expect("an ID"));
    let bus = &pf.file_name().expect("an address").to_string_lossy()[..8];
    // As the 82576 numbers them: from device 10h on, every second function.
    let bdf = format!("{bus}{:02x}.{}", 0x10 + n / 4, 2 * (n % 4));
    let vf = Card::new(sys, &bdf, &format!("{}:{device}", vendor.trim_start_matches("0x")));
    vf.group(100 + u32::from(n)).driven_by("igbvf");
    vf
}

fn remove_vf(sys: &Path, link: &Path) {
    let vf = fs::read_link(link).expect("a link");
    Card::at(sys, &vf.file_name().expect("an address").to_string_lossy()).remove();
    fs::remove_file(link).expect("a link");
}

fn device(sys: &Path, bdf: &str) -> PathBuf {
    sys.join("bus/pci/devices").join(bdf)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// What was written to a file that takes orders; empties it.
fn taken(path: &Path) -> Option<String> {
    let order = text(path)?;
    fs::write(path, "").expect("empty a file");
    Some(order)
}
