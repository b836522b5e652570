//! What the guest, PID 1 and the containers use, in Prometheus' text format.
//!
//! Names and labels are Kata's where Kata has them (`kata_guest_*`, `kata_agent_*`); others begin with `hyperstart_`.
//! Every file is bounded, and so is the text.

mod names;

use std::fs;
use std::path::Path;

use crate::network::Counters;
use crate::textfile::{PAGE_BYTES, ProcessStat, TICK_NS, labelled, numbers, read_optional};
use names::{CPU_TIMES, DISK_ITEMS, MEMINFO, STATUS, VMSTAT};

const TICK_MS: u64 = TICK_NS / 1_000_000;

/// What a container uses, in short.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFigures {
    pub id: String,
    pub cpu_ns: u64,
    pub memory_bytes: u64,
    pub pids: u64,
}

/// The text, as it grows.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    pub fn into_string(self) -> String {
        self.0
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"] {
            self.0.push_str(part);
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push_str(if at == 0 { "{" } else { "," });
            self.0.push_str(label);
            self.0.push_str("=\"");
            self.0.extend(text.chars().flat_map(escape));
            self.0.push('"');
        }
        self.0.push_str(if labels.is_empty() { " " } else { "} " });
        self.0.push_str(value);
        self.0.push('\n');
    }

    fn items<'a>(&mut self, name: &str, items: impl IntoIterator<Item = (&'a str, u64)>) {
        for (item, value) in items {
            self.sample(name, &[("item", item)], &value.to_string());
        }
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: &str) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// PID 1 itself.
    pub fn agent(&mut self, scrapes: u64) {
        let stat = read_optional(Path::new("/proc/self/stat"));
        let status = read_optional(Path::new("/proc/self/status"));
        let stat = ProcessStat::parse(&stat);
        let field = |number| stat.as_ref().and_then(|stat| stat.number(number)).unwrap_or_default();
        self.single(
            "kata_agent_scrape_count",
            "counter",
            "Metrics scrape count",
            &scrapes.to_string(),
        );
        let time = seconds((field(14) + field(15)) * TICK_NS);
        self.single("kata_agent_total_time", "gauge", "Processor time in seconds", &time);
        for (name, help, value) in [
            ("kata_agent_threads", "Threads", field(20)),
            ("kata_agent_total_vm", "Virtual memory in bytes", field(23)),
            ("kata_agent_total_rss", "Resident memory in bytes", field(24) * PAGE_BYTES),
            ("kata_agent_process_open_fds", "Open descriptors", open_descriptors()),
        ] {
            self.single(name, "gauge", help, &value.to_string());
        }
        let name = "kata_agent_proc_status";
        self.family(name, "gauge", "Memory in kB, and context switches");
        self.items(name, named(&status, STATUS));
    }

    /// The guest as its kernel tells of it.
    pub fn guest(&mut self, interfaces: &[Counters]) {
        let file = |path: &str| read_optional(Path::new(path));
        self.load(&file("/proc/loadavg"));
        let name = "kata_guest_meminfo";
        self.family(name, "gauge", "Memory in bytes");
        let meminfo = file("/proc/meminfo");
        self.items(name, named(&meminfo, MEMINFO).map(|(item, kib)| (item, kib * 1024)));
        let name = "kata_guest_vm_stat";
        self.family(name, "gauge", "Virtual memory statistics");
        let vmstat = file("/proc/vmstat");
        self.items(name, numbers(&vmstat).filter(|(item, _)| VMSTAT.contains(item)));
        self.cpu_time(&file("/proc/stat"));
        self.pressure();
        self.disks(&file("/proc/diskstats"));
        self.interfaces(interfaces);
    }

    /// `0.20 0.52 1.17 1/93 4711`.
    fn load(&mut self, loadavg: &str) {
        let mut words = loadavg.split_ascii_whitespace();
        let name = "kata_guest_load";
        self.family(name, "gauge", "Load average");
        for item in ["load1", "load5", "load15"] {
            self.sample(name, &[("item", item)], words.next().unwrap_or("0"));
        }
        let (running, all) =
            words.next().and_then(|word| word.split_once('/')).unwrap_or(("0", "0"));
        let name = "kata_guest_tasks";
        self.family(name, "gauge", "Tasks that run, and all");
        self.sample(name, &[("item", "cur")], running);
        self.sample(name, &[("item", "max")], all);
    }

    /// `cpu0 4705 150 1120 …` in ticks; the first line is of all.
    fn cpu_time(&mut self, stat: &str) {
        let name = "kata_guest_cpu_time";
        self.family(name, "gauge", "Processor time in milliseconds");
        for line in stat.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(cpu) = words.next().and_then(|word| word.strip_prefix("cpu")) else {
                continue;
            };
            let cpu = if cpu.is_empty() { "total" } else { cpu };
            for (item, ticks) in CPU_TIMES.iter().zip(words) {
                let ms = ticks.parse::<u64>().unwrap_or_default() * TICK_MS;
                self.sample(name, &[("cpu", cpu), ("item", item)], &ms.to_string());
            }
        }
    }

    /// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full`.
    fn pressure(&mut self) {
        let name = "hyperstart_guest_pressure";
        self.family(
            name,
            "gauge",
            "Tasks held up: percent of the last seconds, total in microseconds",
        );
        for resource in ["cpu", "memory", "io"] {
            let text = read_optional(&Path::new("/proc/pressure").join(resource));
            for line in text.lines() {
                let mut words = line.split_ascii_whitespace();
                let kind = words.next().unwrap_or_default();
                for (item, value) in words.filter_map(|word| word.split_once('=')) {
                    self.sample(
                        name,
                        &[("resource", resource), ("kind", kind), ("item", item)],
                        value,
                    );
                }
            }
        }
    }

    /// `254 0 vda 97 0 …`; a disk that was never used says nothing.
    fn disks(&mut self, diskstats: &str) {
        let name = "kata_guest_diskstat";
        self.family(name, "gauge", "Disks: sectors of 512 bytes, times in milliseconds");
        for line in diskstats.lines() {
            let mut words = line.split_ascii_whitespace().skip(2);
            let Some(disk) = words.next() else { continue };
            for (item, value) in DISK_ITEMS.iter().zip(words) {
                self.sample(name, &[("disk", disk), ("item", item)], value);
            }
        }
    }

    fn interfaces(&mut self, interfaces: &[Counters]) {
        let name = "kata_guest_netdev_stat";
        self.family(name, "gauge", "Network interfaces");
        for counters in interfaces {
            for (item, value) in [
                ("recv_bytes", counters.rx_bytes),
                ("recv_packets", counters.rx_packets),
                ("recv_errs", counters.rx_errors),
                ("recv_drop", counters.rx_dropped),
                ("sent_bytes", counters.tx_bytes),
                ("sent_packets", counters.tx_packets),
                ("sent_errs", counters.tx_errors),
                ("sent_drop", counters.tx_dropped),
            ] {
                let labels = [("interface", counters.name.as_str()), ("item", item)];
                self.sample(name, &labels, &value.to_string());
            }
        }
    }

    /// Each container that is there.
    pub fn containers(&mut self, figures: &[ContainerFigures]) {
        type Value = fn(&ContainerFigures) -> String;
        let families: [(&str, &str, &str, Value); 3] = [
            ("hyperstart_container_cpu_seconds_total", "counter", "Processor time", |one| {
                seconds(one.cpu_ns)
            }),
            ("hyperstart_container_memory_bytes", "gauge", "Memory, page cache included", |one| {
                one.memory_bytes.to_string()
            }),
            ("hyperstart_container_pids", "gauge", "Processes and threads", |one| {
                one.pids.to_string()
            }),
        ];
        for (name, kind, help, value) in families {
            self.family(name, kind, help);
            for one in figures {
                self.sample(name, &[("container", &one.id)], &value(one));
            }
        }
    }
}

/// The numbers of those names of a table that the text has.
fn named<'a>(text: &str, names: &'a [(&str, &'a str)]) -> impl Iterator<Item = (&'a str, u64)> {
    names.iter().filter_map(move |(known, ours)| Some((*ours, labelled(text, known)?)))
}

/// Less the one by which they are counted.
fn open_descriptors() -> u64 {
    let count = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    u64::try_from(count).unwrap_or_default().saturating_sub(1)
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// As the format has it: a backslash, a quote, a line feed.
fn escape(character: char) -> impl Iterator<Item = char> {
    let (first, second) = match character {
        '\\' | '"' => ('\\', Some(character)),
        '\n' => ('\\', Some('n')),
        other => (other, None),
    };
    [Some(first), second].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Text)) -> String {
        let mut text = Text::default();
        write(&mut text);
        text.into_string()
    }

    #[test]
    fn lines_are_prometheus_own() {
        let said = text(|text| text.single("a_total", "counter", "All of it", "7"));
        assert_eq!(said, "# HELP a_total All of it\n# TYPE a_total counter\na_total 7\n");
        let said = text(|text| text.sample("x", &[("a", "1"), ("b", "q\"\\\n")], "2"));
        assert_eq!(said, "x{a=\"1\",b=\"q\\\"\\\\\\n\"} 2\n");
        assert_eq!(seconds(1_020_000_003), "1.020000003");
    }

    #[test]
    fn proc_is_read_line_by_line() {
        let meminfo =
            "MemTotal:          61440 kB\nActive(anon):        12 kB\nHugePages_Total:       0\n";
        assert_eq!(
            named(meminfo, MEMINFO).collect::<Vec<_>>(),
            [("mem_total", 61_440), ("active_anon", 12)]
        );
        let said = text(|text| text.load("0.20 0.52 1.17 1/93 4711\n"));
        assert!(said.contains("kata_guest_load{item=\"load5\"} 0.52\n"), "{said}");
        assert!(said.contains("kata_guest_tasks{item=\"max\"} 93\n"), "{said}");
        let said = text(|text| text.cpu_time("cpu  1 2 3\ncpu0 4 5 6\nintr 7\n"));
        assert!(said.contains("kata_guest_cpu_time{cpu=\"total\",item=\"system\"} 30\n"), "{said}");
        assert!(said.ends_with("kata_guest_cpu_time{cpu=\"0\",item=\"system\"} 60\n"), "{said}");
        let said = text(|text| text.disks(" 254       0 vda 97 1 24576\n"));
        assert!(
            said.ends_with("kata_guest_diskstat{disk=\"vda\",item=\"sectors_read\"} 24576\n"),
            "{said}"
        );
    }

    #[test]
    fn containers_are_told_apart() {
        let one = ContainerFigures {
            id: "web".into(),
            cpu_ns: 1_500_000_000,
            memory_bytes: 4096,
            pids: 2,
        };
        let said = text(|text| text.containers(&[one]));
        for line in [
            "hyperstart_container_cpu_seconds_total{container=\"web\"} 1.500000000\n",
            "hyperstart_container_memory_bytes{container=\"web\"} 4096\n",
            "hyperstart_container_pids{container=\"web\"} 2\n",
        ] {
            assert!(said.contains(line), "{said}");
        }
    }
}
