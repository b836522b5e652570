//! New limits for a container that is there already: all of them, or the former ones are back.
//!
//! The former values are read first, then a child writes the new ones: memory below what is in use makes the kernel
//! reclaim and kill until it fits, in the write(2) itself. What fails, or is not done in time, is undone by a second
//! child from the values that were read.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::limits::{self, Setting};
use super::spec::{DeviceRule, Limit, Resources};
use super::{Container, State, stopped};
use crate::error::{Code, Context, Error, Result};
use crate::offload;
use crate::reaper::Reaper;
use crate::textfile;

/// For the kernel to take memory back, and for a disk to answer what it was asked before.
const DEADLINE: Duration = Duration::from_secs(20);

impl Container {
    /// Changes what `resources` says, and nothing else.
    pub async fn update(&self, resources: &Resources, reaper: &Reaper) -> Result<()> {
        let _changing = self.changing.lock().await;
        if let State::Stopped(_) = self.state() {
            return Err(stopped());
        }
        self.check_device_rules(&resources.device_rules)?;
        let cgroup = self.cgroup.path();
        check_usage(cgroup, resources)?;
        let new = in_order(limits::settings(&with_quota(cgroup, resources)?));
        if new.is_empty() {
            return Ok(());
        }
        let former = former(cgroup, &new)?;
        let weighed = || resources.io_device_weights.iter().map(|(device, _)| *device);
        let changed = offload::run(reaper, DEADLINE, || {
            weighed().try_for_each(limits::weigh)?;
            new.iter().try_for_each(|setting| limits::set(cgroup, setting))
        });
        let Err(err) = changed.await else { return Ok(()) };
        // All of them, whatever becomes of one; the first failure is told.
        let undo =
            || former.iter().map(|setting| restore(cgroup, setting)).fold(Ok(()), Result::and);
        match offload::run(reaper, DEADLINE, undo).await {
            Ok(()) => Err(err),
            Err(left) => {
                let message = format!("{err}; and not all former limits are back: {left}");
                Err(Error::new(err.code(), message))
            }
        }
    }

    /// Rules do not change. Kata's Go runtime keeps a spec's rules back when it creates a container, since the guest's
    /// devices have other numbers than the host's, and passes them on with every update: such a list, which begins with
    /// no device at all, leaves the guest's own rules in force. They allow no more.
    fn check_device_rules(&self, rules: &[DeviceRule]) -> Result<()> {
        let is_kept_back = self.traits.has_default_device_rules
            && rules.first().is_none_or(|first| *first == DeviceRule::DENY_ALL);
        if is_kept_back || rules.is_empty() {
            return Ok(());
        }
        let message = "linux.resources.devices: not supported by this guest in an update";
        Err(Error::new(Code::Unimplemented, message))
    }
}

/// OCI `linux.resources.memory.checkBeforeUpdate`.
fn check_usage(cgroup: &Path, resources: &Resources) -> Result<()> {
    let (true, Some(Limit::Of(limit))) = (resources.check_before_update, resources.memory_limit)
    else {
        return Ok(());
    };
    let usage = textfile::read(&cgroup.join("memory.current"))?;
    let usage = textfile::single(&usage).unwrap_or_default();
    if usage <= limit {
        return Ok(());
    }
    let message = format!(
        "linux.resources.memory.limit: {limit} is less than the {usage} bytes in use, and \
         checkBeforeUpdate is asked for"
    );
    Err(Error::new(Code::InvalidArgument, message))
}

/// A period alone keeps the quota: they are one file, and a new cgroup's quota is none.
fn with_quota(cgroup: &Path, resources: &Resources) -> Result<Resources> {
    let mut resources = resources.clone();
    if resources.cpu_quota_us.is_none() && resources.cpu_period_us.is_some() {
        resources.cpu_quota_us = Some(quota(&textfile::read(&cgroup.join("cpu.max"))?));
    }
    Ok(resources)
}

/// `QUOTA PERIOD`.
fn quota(cpu_max: &str) -> Limit {
    let quota = cpu_max.split_ascii_whitespace().next();
    quota.and_then(|quota| quota.parse().ok()).map_or(Limit::Max, Limit::Of)
}

/// So that no step is refused for what a later one changes: the burst is at most the quota, and an idle cgroup takes
/// no weight.
fn in_order(settings: Vec<Setting>) -> Vec<Setting> {
    let says = |file: &str| settings.iter().any(|setting| setting.file == file);
    let no_burst = (says("cpu.max") && says("cpu.max.burst")).then(|| Setting {
        file: "cpu.max.burst".into(),
        value: "0".into(),
        is_optional: false,
    });
    let (mut first, rest): (Vec<_>, Vec<_>) = settings
        .into_iter()
        .partition(|setting| setting.file == "cpu.idle" && setting.value == "0");
    first.extend(no_burst);
    first.extend(rest);
    first
}

/// What to write, in this order, so that the cgroup is as it is now.
fn former(cgroup: &Path, new: &[Setting]) -> Result<Vec<Setting>> {
    let mut files: Vec<&str> = new.iter().map(|setting| setting.file.as_str()).collect();
    if files.contains(&"cpu.idle") {
        files.push("cpu.weight"); // to be idle, or not, sets it
    }
    files.sort_unstable(); // cpu.idle before cpu.weight, cpu.max before cpu.max.burst
    files.dedup();
    let mut former = Vec::new();
    for file in files {
        let is_optional = new.iter().any(|setting| setting.file == file && setting.is_optional);
        if !cgroup.join(file).exists() {
            if is_optional {
                continue;
            }
            return Err(limits::missing(cgroup, file));
        }
        // Some files only take: what was there before cannot be brought back, and so is not changed.
        let text = textfile::read(&cgroup.join(file)).context(|| format!("set {file}"))?;
        let setting =
            |value: String, is_optional| Setting { file: file.to_owned(), value, is_optional };
        if file == "cpu.max.burst" {
            former.insert(0, setting("0".to_owned(), false));
        }
        former.push(setting(text.trim_end().to_owned(), is_optional));
        former.extend(none_of(file, &text, new).into_iter().map(|value| setting(value, true)));
    }
    if former.iter().any(|setting| setting.file == "cpu.idle" && setting.value == "1") {
        former.retain(|setting| setting.file != "cpu.weight"); // an idle one takes none
    }
    Ok(former)
}

/// For disks of which the file does not tell yet: what means that there is no limit.
fn none_of(file: &str, text: &str, new: &[Setting]) -> Vec<String> {
    let none = match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.weight" => "default",
        _ => return Vec::new(),
    };
    let device = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let known: Vec<String> = text.lines().map(device).collect();
    let of_file = new.iter().filter(|setting| setting.file == file);
    let devices = of_file.flat_map(|setting| setting.value.lines()).map(device);
    let unknown = devices.filter(|device| device.contains(':') && !known.contains(device));
    unknown.map(|device| format!("{device} {none}")).collect()
}

fn restore(cgroup: &Path, setting: &Setting) -> Result<()> {
    if setting.value.is_empty() {
        if setting.file.starts_with("io.") {
            return Ok(()); // of disks there was nothing: see `none_of`
        }
        // An empty list (of CPUs) is a line too.
        return fs::write(cgroup.join(&setting.file), "\n")
            .context(|| format!("clear {}", setting.file));
    }
    match limits::set(cgroup, setting) {
        // The disk is not there, which may be why all this is undone.
        Err(err) if setting.is_optional && err.code() == Code::NotFound => Ok(()),
        set => set,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(file: &str, value: &str) -> Setting {
        Setting { file: file.into(), value: value.into(), is_optional: false }
    }

    fn lines(settings: &[Setting]) -> Vec<String> {
        settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    #[test]
    fn no_step_is_refused_for_what_a_later_one_changes() {
        let resources = Resources {
            cpu_shares: Some(1024),
            cpu_idle: Some(false),
            cpu_quota_us: Some(Limit::Of(5000)),
            cpu_burst_us: Some(100),
            ..Resources::default()
        };
        assert_eq!(
            lines(&in_order(limits::settings(&resources))),
            ["cpu.idle=0", "cpu.max.burst=0", "cpu.weight=39", "cpu.max=5000", "cpu.max.burst=100"]
        );
        let resources = Resources { cpu_idle: Some(true), ..resources };
        assert_eq!(
            lines(&in_order(limits::settings(&resources)))[1..3],
            ["cpu.weight=39", "cpu.idle=1"]
        );
    }

    #[test]
    fn what_was_there_comes_back() {
        let directory =
            std::env::temp_dir().join(format!("hyperstart-update-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let files = [
            ("cpu.idle", "0\n"),
            ("cpu.weight", "79\n"),
            ("cpu.max", "max 100000\n"),
            ("cpu.max.burst", "10\n"),
            ("cpuset.cpus", "\n"),
            ("io.max", "8:0 rbps=1 wbps=max riops=max wiops=max\n"),
            ("io.weight", "default 100\n"),
        ];
        for (file, text) in files {
            fs::write(directory.join(file), text).unwrap();
        }
        let mut new: Vec<Setting> = ["cpu.idle", "cpu.max", "cpu.max.burst", "cpuset.cpus"]
            .map(|file| setting(file, "1"))
            .into();
        new.extend([setting("io.max", "8:0 rbps=7\n8:16 wbps=8"), setting("io.weight", "8:0 5")]);
        let optional = Setting { is_optional: true, ..setting("hugetlb.2MB.rsvd.max", "1") };
        let with_optional: Vec<Setting> = new.into_iter().chain([optional]).collect();
        assert_eq!(
            lines(&former(&directory, &with_optional).unwrap()),
            [
                "cpu.max.burst=0",
                "cpu.idle=0",
                "cpu.max=max 100000",
                "cpu.max.burst=10",
                "cpu.weight=79",
                "cpuset.cpus=",
                "io.max=8:0 rbps=1 wbps=max riops=max wiops=max",
                "io.max=8:16 rbps=max wbps=max riops=max wiops=max",
                "io.weight=default 100",
                "io.weight=8:0 default",
            ]
        );
        fs::write(directory.join("cpu.idle"), "1\n").unwrap();
        fs::write(directory.join("cpu.weight"), "1\n").unwrap();
        assert_eq!(
            lines(&former(&directory, &[setting("cpu.idle", "0")]).unwrap()),
            ["cpu.idle=1"]
        );
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_period_alone_keeps_the_quota() {
        assert_eq!(quota("max 100000\n"), Limit::Max);
        assert_eq!(quota("40000 80000\n"), Limit::Of(40_000));
    }
}
