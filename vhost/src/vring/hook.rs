//! What tests see of a burst from inside: each descriptor that pass one reads, each publication, and the moments between
//! the passes. In a release nothing is left of it.

#[cfg(any(test, fuzzing))]
pub(super) use observed::*;
#[cfg(not(any(test, fuzzing)))]
pub(super) use unobserved::*;

#[cfg(not(any(test, fuzzing)))]
mod unobserved {
    use crate::wire::ring::Desc;

    #[inline(always)]
    pub(in crate::vring) fn between() {}
    #[inline(always)]
    pub(in crate::vring) fn before_gate() {}
    #[inline(always)]
    pub(in crate::vring) fn read(_: Desc) {}
    #[inline(always)]
    pub(in crate::vring) fn published(_: usize, _: usize, _: u16) {}
}

#[cfg(any(test, fuzzing))]
mod observed {
    use std::cell::{Cell, RefCell};

    use crate::wire::ring::Desc;

    /// What a burst did.
    #[derive(Debug, Default)]
    pub(in crate::vring) struct Trace {
        /// Private copies of descriptors, in the order in which they were read.
        pub(in crate::vring) reads: Vec<Desc>,
        pub(in crate::vring) published: Vec<Published>,
    }

    /// Buffers that went back at once.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::vring) struct Published {
        pub(in crate::vring) buffers: usize,
        /// Positions of the ring that they took.
        pub(in crate::vring) slots: usize,
        pub(in crate::vring) size: u16,
    }

    pub(in crate::vring) type Between = Box<dyn FnMut()>;

    thread_local! {
        static TRACE: RefCell<Trace> = RefCell::default();
        static RECORDS: Cell<bool> = const { Cell::new(false) };
        static BETWEEN: RefCell<Option<Between>> = RefCell::default();
        static BEFORE_GATE: RefCell<Option<Between>> = RefCell::default();
    }

    /// From now on, on this thread, `f` runs between the passes of each burst; `None`: nothing does.
    pub(in crate::vring) fn set_between(f: Option<Between>) {
        BETWEEN.set(f);
    }

    /// From now on, on this thread, `f` runs right before the data plane tries to enter a gate.
    #[cfg(test)]
    pub(in crate::vring) fn set_before_gate(f: Option<Between>) {
        BEFORE_GATE.set(f);
    }

    /// The data plane is about to enter a gate.
    pub(in crate::vring) fn before_gate() {
        run(&BEFORE_GATE);
    }

    fn run(what: &'static std::thread::LocalKey<RefCell<Option<Between>>>) {
        let f = what.take();
        if let Some(mut f) = f {
            f();
            what.set(Some(f));
        }
    }

    /// What happened on this thread since it was last asked; the first call begins the record.
    pub(in crate::vring) fn take() -> Trace {
        RECORDS.set(true);
        TRACE.take()
    }

    /// Between the passes: what was read is recorded, and not acted upon yet.
    pub(in crate::vring) fn between() {
        run(&BETWEEN);
    }

    /// A descriptor was read.
    pub(in crate::vring) fn read(desc: Desc) {
        if RECORDS.get() {
            TRACE.with_borrow_mut(|trace| trace.reads.push(desc));
        }
    }

    /// So many buffers went back, over so many positions of a ring of `size`.
    pub(in crate::vring) fn published(buffers: usize, slots: usize, size: u16) {
        if RECORDS.get() {
            TRACE.with_borrow_mut(|trace| trace.published.push(Published { buffers, slots, size }));
        }
    }
}
