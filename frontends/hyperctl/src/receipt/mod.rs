//! The boot receipt: where the time went between `hyperctl run` and the container's first output.
//!
//! Two clocks are put on one line. The host notes the end of each of its phases, in microseconds since it began; the
//! guest notes monotonic times of its own. Both know the moment of *ready*: the guest says it, the host hears it. So
//! the guest's times are moved until the two meet, which is right up to the few 100 us that the word travels.
//! [`Timeline`] is the result, a pure value; `table` and `svg` only draw it.

pub mod svg;
pub mod table;

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// The end of a phase on the host.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct HostStep {
    pub name: String,
    /// Microseconds since hyperctl began to start the pod.
    pub at_us: u64,
}

/// A moment that the guest noted.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct GuestStep {
    pub name: String,
    pub monotonic_ns: u64,
}

/// The phase after which host and guest know of each other.
pub const READY: &str = "ready";
/// The phase that ends with the first byte of output.
pub const OUTPUT: &str = "output";

/// What the guest told, in the form in which an exited pod keeps it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct GuestReceipt {
    pub steps: Vec<GuestStep>,
    pub boot_mode: String,
    pub root_fstype: String,
    pub root_dax: bool,
    #[serde(default)]
    pub root_verity: bool,
    pub mem_total_bytes: u64,
    pub mem_available_bytes: u64,
}

/// Writes the host's side while it happens.
pub struct Stopwatch {
    begun: Instant,
}

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch { begun: Instant::now() }
    }

    /// The phase `name` ends in this moment.
    pub fn step(&self, name: &str) -> HostStep {
        self.step_at(name, Instant::now())
    }

    /// The phase `name` ended at `at`.
    pub fn step_at(&self, name: &str, at: Instant) -> HostStep {
        let elapsed = at.saturating_duration_since(self.begun);
        let at_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        HostStep { name: name.to_string(), at_us }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Host,
    Guest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    pub side: Side,
    pub label: String,
    pub start_us: u64,
    pub end_us: u64,
}

impl Bar {
    pub fn length_us(&self) -> u64 {
        self.end_us.saturating_sub(self.start_us)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// `pod web (busybox)`
    pub title: String,
    /// One line of what kind of VM it was.
    pub subtitle: String,
    pub bars: Vec<Bar>,
}

impl Timeline {
    pub fn new(title: String, vm: &str, host: &[HostStep], guest: &GuestReceipt) -> Timeline {
        // What the wait for the guest contains comes after it, and before what follows it.
        let until_ready = host.iter().position(|step| step.name == READY).map_or(0, |at| at + 1);
        let mut bars = host_bars(host);
        let after = bars.split_off(until_ready);
        bars.extend(guest_bars(host, &guest.steps));
        bars.extend(after);
        Timeline { title, subtitle: format!("{vm}, {}", describe(guest)), bars }
    }

    /// What the last of the bars came to.
    pub fn outcome(&self) -> &'static str {
        match self.bars.last() {
            Some(bar) if bar.label == host_label(OUTPUT) => "first output",
            Some(_) | None => "a running container",
        }
    }

    pub fn total_us(&self) -> u64 {
        self.bars.iter().map(|bar| bar.end_us).max().unwrap_or(0)
    }
}

fn host_bars(steps: &[HostStep]) -> Vec<Bar> {
    let starts = std::iter::once(0).chain(steps.iter().map(|step| step.at_us));
    let bar = |(start_us, step): (u64, &HostStep)| Bar {
        side: Side::Host,
        label: host_label(&step.name).to_string(),
        start_us,
        end_us: step.at_us.max(start_us),
    };
    starts.zip(steps).map(bar).collect()
}

/// Each guest step ends the phase that began with the one before it; before the first, the guest had no clock yet.
fn guest_bars(host: &[HostStep], steps: &[GuestStep]) -> Vec<Bar> {
    let Some(heard_us) = host.iter().find(|step| step.name == READY).map(|step| step.at_us) else {
        return Vec::new();
    };
    let Some(said_us) = steps.iter().find(|step| step.name == READY).map(micros) else {
        return Vec::new();
    };
    // A guest's clock that began before we did (a clone's) would lie left of the picture's edge.
    let place = |step: &GuestStep| (heard_us + micros(step)).saturating_sub(said_us);
    let bar = |pair: &[GuestStep]| match pair {
        [from, to] => Some(Bar {
            side: Side::Guest,
            label: guest_label(&to.name).to_string(),
            start_us: place(from),
            end_us: place(to).max(place(from)),
        }),
        _ => None,
    };
    // What follows `ready` is the host's doing and has bars of its own.
    let until_ready = steps.iter().position(|step| step.name == READY).map_or(0, |at| at + 1);
    let told = steps.get(..until_ready).unwrap_or_default();
    let launched_us = host.first().map_or(0, |step| step.at_us);
    let untold = told.first().map(|first| Bar {
        side: Side::Guest,
        label: "QEMU, firmware".to_string(),
        start_us: launched_us.min(place(first)),
        end_us: place(first),
    });
    untold.into_iter().chain(told.windows(2).filter_map(bar)).collect()
}

fn micros(step: &GuestStep) -> u64 {
    step.monotonic_ns / 1_000
}

fn host_label(name: &str) -> &str {
    match name {
        "vmm" => "start QEMU",
        READY => "wait for ready",
        "connected" => "connect",
        "sandbox" => "create sandbox",
        "created" => "create container",
        "started" => "start container",
        OUTPUT => "first output",
        other => other,
    }
}

fn guest_label(name: &str) -> &str {
    match name {
        "kernel" => "before the kernel",
        "init" => "kernel",
        "mounts" => "init: mounts",
        "listening" => "init: listening",
        READY => "init: say ready",
        other => other,
    }
}

fn describe(guest: &GuestReceipt) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let used = guest.mem_total_bytes.saturating_sub(guest.mem_available_bytes);
    let dax = match (guest.root_dax, guest.root_verity) {
        (true, _) => " with DAX",
        (false, true) => " with verity",
        (false, false) => "",
    };
    let root = match guest.root_fstype.as_str() {
        "" => String::new(),
        fstype => format!("{fstype} root{dax}, "),
    };
    format!("{root}{} of {} MiB of guest memory used", mib(used), mib(guest.mem_total_bytes))
}

/// `12.3 ms`; with two digits below one millisecond.
pub fn millis(us: u64) -> String {
    let millis = us as f64 / 1_000.0;
    if us < 1_000 { format!("{millis:.2} ms") } else { format!("{millis:.1} ms") }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn host(steps: &[(&str, u64)]) -> Vec<HostStep> {
        steps.iter().map(|(name, at_us)| HostStep { name: (*name).into(), at_us: *at_us }).collect()
    }

    pub fn sample() -> Timeline {
        let host = host(&[
            ("vmm", 21_000),
            ("ready", 431_500),
            ("connected", 433_100),
            ("sandbox", 434_900),
            ("created", 449_000),
            ("started", 451_200),
            ("output", 468_000),
        ]);
        let step = |name: &str, monotonic_ns| GuestStep { name: name.into(), monotonic_ns };
        let guest = GuestReceipt {
            steps: vec![
                step("kernel", 0),
                step("init", 302_000_000),
                step("mounts", 305_200_000),
                step("listening", 306_000_000),
                step("ready", 306_400_000),
                step("first_container", 326_000_000),
            ],
            boot_mode: "initrd".into(),
            root_fstype: "rootfs".into(),
            root_dax: false,
            root_verity: false,
            mem_total_bytes: 54 << 20,
            mem_available_bytes: 43 << 20,
        };
        Timeline::new("pod web (busybox)".into(), "microvm, 1 CPU, 64 MiB", &host, &guest)
    }

    #[test]
    fn the_two_clocks_meet_at_ready() {
        let timeline = sample();
        let find = |label: &str| timeline.bars.iter().find(|bar| bar.label == label).unwrap();
        assert_eq!(find("init: say ready").end_us, find("wait for ready").end_us);
        assert_eq!(find("kernel").start_us, 431_500 - 306_400);
        assert_eq!(find("kernel").length_us(), 302_000);
        assert_eq!(timeline.total_us(), 468_000);
    }

    #[test]
    fn a_guest_that_told_nothing_leaves_the_hosts_bars() {
        let timeline =
            Timeline::new("x".into(), "q35", &host(&[("vmm", 5)]), &GuestReceipt::default());
        assert_eq!(timeline.bars.len(), 1);
    }

    #[test]
    fn a_guest_clock_that_is_older_than_the_pod_is_cut_at_its_start() {
        let guest = GuestReceipt {
            steps: vec![
                GuestStep { name: "kernel".into(), monotonic_ns: 0 },
                GuestStep { name: "ready".into(), monotonic_ns: 9_000_000_000 },
            ],
            ..GuestReceipt::default()
        };
        let timeline = Timeline::new("x".into(), "q35", &host(&[("ready", 1_000)]), &guest);
        assert!(timeline.bars.iter().all(|bar| bar.end_us <= 1_000));
    }
}
