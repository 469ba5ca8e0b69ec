//! What the emulated machine does by itself, and no program in it: QEMU 10.0.2 was seen to abort by an assertion of its own when
//! a card behind its IOMMU was started (`iotlb_to_section`), once in seven runs, and a kernel not to come up under emulation,
//! once in a hundred. That says nothing of what is tested, so such a scene is played once more; any other failure is one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Notes that the machine itself failed; the scene's panic follows.
pub(crate) fn note(what: &str) {
    eprintln!("the emulated machine itself failed: {what}");
    HAPPENED.store(true, Ordering::Relaxed);
}

/// Whether these are last words of QEMU's about itself.
pub(crate) fn is_qemus(log: &str) -> bool {
    log.lines().any(|line| line.contains("qemu") && line.contains("Assertion `"))
}

/// Plays a scene, and once more if the machine itself failed.
pub(crate) fn play(scene: impl Fn()) {
    HAPPENED.store(false, Ordering::Relaxed);
    let Err(panic) = catch_unwind(AssertUnwindSafe(&scene)) else { return };
    if !HAPPENED.load(Ordering::Relaxed) {
        resume_unwind(panic);
    }
    eprintln!("once more, on a machine that is made anew");
    scene();
}

#[test]
fn only_the_machines_own_failures_are_played_again() {
    let tries = std::sync::atomic::AtomicU32::new(0);
    let scene = |mishap: bool| {
        if tries.fetch_add(1, Ordering::Relaxed) == 0 {
            if mishap {
                note("in a test");
            }
            panic!("the first try fails");
        }
    };
    play(|| scene(true));
    assert_eq!(tries.swap(0, Ordering::Relaxed), 2);
    assert!(catch_unwind(AssertUnwindSafe(|| play(|| scene(false)))).is_err());
    assert_eq!(tries.into_inner(), 1);
    assert!(is_qemus(
        "qemu-system-x86_64: ../system/physmem.c:7: iotlb_to_section: Assertion `x < y' failed."
    ));
    assert!(!is_qemus("thread panicked: assertion `left == right` failed"));
}
