//! Functions change hands, and virtual functions come and go.
//!
//! The kernel's steps (Documentation/ABI/testing/sysfs-bus-pci): `driver_override` lays down who may have a function,
//! `driver/unbind` takes it from whom it has, `drivers_probe` offers it around. What fails halfway is undone.

use std::thread;
use std::time::{Duration, Instant};

use super::sysfs::write;
use super::{Bdf, Function, IommuGroup, PciError, Sysfs};

/// The driver that hands functions to programs.
pub const VFIO: &str = "vfio-pci";

/// How long the kernel may take for what it does: it mostly has done it when the write returns.
const PATIENCE: Duration = Duration::from_secs(2);

impl Sysfs {
    /// Takes a function from the kernel's driver and gives it to vfio-pci, where a program can open it. Nothing happens if
    /// it is there already. A function that is no network card, or whose interface is up, is refused unless `by_force`: it
    /// may be the system's disk, or what its owner is reached by. Returns its group: all that is
    /// [in the way](IommuGroup::in_the_way) must be given to vfio-pci as well.
    ///
    /// # Errors
    /// [`PciError`]; everything is as before then, or it is [`PciError::Halfway`].
    pub fn bind_vfio(&self, bdf: Bdf, by_force: bool) -> Result<IommuGroup, PciError> {
        let function = self.function(bdf)?;
        if function.driver().as_deref() != Some(VFIO) {
            check_takeable(&function, by_force)?;
            let before = Before::of(&function);
            hand_to_vfio(&function).map_err(|first| undone(first, before.restore(&function)))?;
        }
        function.iommu_group()?.ok_or(PciError::NoIommu(bdf))
    }

    /// Gives a function back to the kernel's own driver; returns which took it: none if its module is not loaded. Nothing
    /// happens if it is with the kernel already. Waits while a program has the function open: ask it to let go first.
    ///
    /// # Errors
    /// [`PciError`].
    pub fn unbind_vfio(&self, bdf: Bdf) -> Result<Option<String>, PciError> {
        let function = self.function(bdf)?;
        if function.driver_override().as_deref() == Some(VFIO) {
            lay_down(&function, None)?;
        }
        if function.driver().is_none_or(|driver| driver == VFIO) {
            release(&function)?;
            probe(&function)?;
            settle(|| function.driver().is_some());
        }
        match function.driver() {
            Some(driver) if driver == VFIO => {
                Err(PciError::WrongDriver { bdf, wanted: None, found: Some(driver) })
            }
            driver => Ok(driver),
        }
    }

    /// Has a PF make `count` VFs, and returns them in its order. The kernel changes one number above 0 into another only by
    /// way of 0: all earlier VFs are lost then, also for programs that use them, which it waits for. Nothing happens if the
    /// number is right already.
    ///
    /// # Errors
    /// [`PciError`]; the earlier number is tried for again then.
    pub fn set_vfs(&self, pf: Bdf, count: u16) -> Result<Vec<Bdf>, PciError> {
        let function = self.function(pf)?;
        let sriov = function.sriov().ok_or(PciError::NotPf(pf))?;
        if count > sriov.most {
            return Err(PciError::TooManyVfs { bdf: pf, asked: count, most: sriov.most });
        }
        if count != sriov.now {
            make_vfs(&function, sriov.now, count).map_err(|first| {
                let now = function.sriov().map_or(0, |s| s.now);
                undone(first, make_vfs(&function, now, sriov.now))
            })?;
        }
        function.virtfns()
    }
}

/// Refuses what must stay with the kernel, or would find nobody to take it, before anything is touched.
fn check_takeable(function: &Function, by_force: bool) -> Result<(), PciError> {
    let bdf = function.bdf();
    let class = function.class()?;
    if class.is_bridge() {
        return Err(PciError::Bridge(bdf));
    }
    if !class.is_network() && !by_force {
        return Err(PciError::NotNetwork(bdf));
    }
    if let Some(sriov) = function.sriov().filter(|s| s.now > 0) {
        return Err(PciError::HasVfs { bdf, vfs: sriov.now });
    }
    let up = function.interfaces()?.into_iter().find(|interface| interface.up && !by_force);
    if let Some(up) = up {
        return Err(PciError::InUse { bdf, interface: up.name });
    }
    if function.iommu_group()?.is_none() && !function.sysfs().allows_no_iommu() {
        return Err(PciError::NoIommu(bdf));
    }
    if function.sysfs().has_driver(VFIO) { Ok(()) } else { Err(PciError::NoVfio) }
}

fn hand_to_vfio(function: &Function) -> Result<(), PciError> {
    lay_down(function, Some(VFIO))?;
    release(function)?;
    probe(function)?;
    expect_driver(function, Some(VFIO))
}

/// How a function stood before a change.
struct Before {
    driver: Option<String>,
    driver_override: Option<String>,
}

impl Before {
    fn of(function: &Function) -> Self {
        Self { driver: function.driver(), driver_override: function.driver_override() }
    }

    fn restore(&self, function: &Function) -> Result<(), PciError> {
        if function.driver_override() != self.driver_override {
            lay_down(function, self.driver_override.as_deref())?;
        }
        if function.driver() == self.driver {
            return Ok(());
        }
        release(function)?;
        if self.driver.is_some() {
            probe(function)?;
        }
        expect_driver(function, self.driver.as_deref())
    }
}

/// What is to be said of a change that failed, once the way back was tried.
fn undone(first: PciError, back: Result<(), PciError>) -> PciError {
    match back {
        Ok(()) => first,
        Err(then) => PciError::Halfway { first: Box::new(first), then: Box::new(then) },
    }
}

/// Lays down which driver may have the function; any that knows it for `None`.
fn lay_down(function: &Function, driver: Option<&str>) -> Result<(), PciError> {
    write(&function.path("driver_override"), &format!("{}\n", driver.unwrap_or_default()))
}

/// Takes the function from the driver that has it, if one has.
fn release(function: &Function) -> Result<(), PciError> {
    if function.driver().is_none() {
        return Ok(());
    }
    write(&function.path("driver/unbind"), &function.bdf().to_string())?;
    expect_driver(function, None)
}

/// Offers the function to the drivers.
fn probe(function: &Function) -> Result<(), PciError> {
    write(&function.sysfs().path("bus/pci/drivers_probe"), &function.bdf().to_string())
}

fn expect_driver(function: &Function, wanted: Option<&str>) -> Result<(), PciError> {
    if settle(|| function.driver().as_deref() == wanted) {
        return Ok(());
    }
    let wanted = wanted.map(str::to_owned);
    Err(PciError::WrongDriver { bdf: function.bdf(), wanted, found: function.driver() })
}

fn make_vfs(pf: &Function, now: u16, count: u16) -> Result<(), PciError> {
    if now > 0 && count != now {
        ask_for_vfs(pf, 0)?;
    }
    if count > 0 && count != now {
        ask_for_vfs(pf, count)?;
    }
    Ok(())
}

fn ask_for_vfs(pf: &Function, count: u16) -> Result<(), PciError> {
    write(&pf.path("sriov_numvfs"), &count.to_string())?;
    let found = || pf.virtfns().map_or(0, |vfs| vfs.len());
    if settle(|| found() == usize::from(count)) {
        return Ok(());
    }
    Err(PciError::VfsMissing { bdf: pf.bdf(), asked: count, found: found() })
}

/// Looks until it is so, or patience is at its end; tells which.
fn settle(is_so: impl Fn() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}
