//! `hyperctl stats`: what containers use, as a table that is drawn anew each second.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::error::{Context as _, Result};
use crate::live::Screen;
use crate::meter::{Meter, Usage};
use crate::output;
use crate::pod::state::Status;
use crate::pod::store::{Pod, Store};
use crate::units;

const INTERVAL: Duration = Duration::from_secs(1);
const HEADER: [&str; 8] =
    ["POD ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
/// Characters of a bar.
const BAR: usize = 10;

/// What a table of figures is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    /// An object a line
    Json,
}

/// Show what pods use: processor time, memory, traffic, processes
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Once, and not each second
    #[arg(long)]
    no_stream: bool,
    /// table or json (an object a line)
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    format: Format,
    /// Names, ids, or beginnings of ids [default: all that run]
    #[arg(value_name = "POD")]
    pods: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8> {
    let store = Store::open()?;
    let mut screen = Screen::new();
    let mut meters = begin(&args, &store).await?;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // at once
    if !args.no_stream && args.format == Format::Table {
        let first = measure(&mut meters).await;
        screen.show(&table(&meters, &first, screen.columns()))?;
    }
    loop {
        ticks.tick().await;
        renew(&args, &store, &mut meters)?;
        if meters.is_empty() && !args.pods.is_empty() {
            return Ok(0); // all of them have ended
        }
        let usages = measure(&mut meters).await;
        match args.format {
            Format::Table => screen.show(&table(&meters, &usages, screen.columns()))?,
            Format::Json => output::print(lines(&meters, &usages))?,
        }
        if args.no_stream {
            return Ok(0);
        }
    }
}

/// The pods that are meant, asked for the first time. Whoever names a pod hears why it has no figures.
async fn begin(args: &Args, store: &Store) -> Result<Vec<Meter>> {
    if args.pods.is_empty() {
        let mut meters = Vec::new();
        renew(args, store, &mut meters)?;
        measure(&mut meters).await;
        return Ok(meters);
    }
    let pods: Result<Vec<Pod>> = args.pods.iter().map(|name| store.find(name)).collect();
    let mut meters: Vec<Meter> = pods?.into_iter().map(Meter::new).collect();
    let usages = measure(&mut meters).await;
    for (name, usage) in args.pods.iter().zip(usages) {
        usage.context(|| format!("ask what pod {name:?} uses"))?;
    }
    Ok(meters)
}

/// Drops the pods that have ended, and takes those in that have begun if all are meant.
fn renew(args: &Args, store: &Store, meters: &mut Vec<Meter>) -> Result<()> {
    let mut pods = store.list()?;
    pods.retain(|pod| matches!(pod.state.status, Status::Running { .. }));
    meters.retain(|meter| pods.iter().any(|pod| pod.state.id == meter.pod.state.id));
    if args.pods.is_empty() {
        pods.retain(|pod| meters.iter().all(|meter| meter.pod.state.id != pod.state.id));
        meters.extend(pods.into_iter().map(Meter::new));
    }
    Ok(())
}

/// Asks all at once: none waits for another's guest.
async fn measure(meters: &mut Vec<Meter>) -> Vec<Result<Usage>> {
    let ask = |mut meter: Meter| {
        tokio::spawn(async move {
            let usage = meter.measure().await;
            (meter, usage)
        })
    };
    let asked: Vec<_> = meters.drain(..).map(ask).collect();
    let mut usages = Vec::new();
    for task in asked {
        if let Ok((meter, usage)) = task.await {
            meters.push(meter);
            usages.push(usage);
        }
    }
    usages
}

/// With bars, where somebody looks and has the columns for them.
fn table(meters: &[Meter], usages: &[Result<Usage>], columns: Option<usize>) -> String {
    let rows: Vec<[String; 8]> =
        meters.iter().zip(usages).map(|(meter, usage)| row(meter, usage)).collect();
    let plain = output::right_aligned(HEADER, &rows, &[2, 3, 4, 5, 6, 7]);
    let width = plain.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    if columns.is_none_or(|columns| columns < width + 2 * (BAR + 2)) {
        return plain;
    }
    let [id, name, cpu, memory, share, net, block, pids] = HEADER;
    let header = [id, name, cpu, "", memory, share, "", net, block, pids];
    let rows: Vec<[String; 10]> = rows
        .into_iter()
        .zip(meters.iter().zip(usages))
        .map(|([id, name, cpu, memory, share, net, block, pids], (meter, usage))| {
            let [cpu_bar, share_bar] = bars(meter, usage);
            [id, name, cpu, cpu_bar, memory, share, share_bar, net, block, pids]
        })
        .collect();
    output::right_aligned(header, &rows, &[2, 4, 5, 7, 8, 9])
}

fn row(meter: &Meter, usage: &Result<Usage>) -> [String; 8] {
    let (id, name) = (meter.pod.state.id.clone(), meter.pod.state.name.clone());
    let Ok(usage) = usage else {
        let none = || "--".to_string();
        return [id, name, none(), none(), none(), none(), none(), none()];
    };
    let [cpu, memory, share, net, block] = texts(usage);
    [id, name, cpu, memory, share, net, block, usage.pids.to_string()]
}

/// Docker's texts.
fn texts(usage: &Usage) -> [String; 5] {
    let pair = |one: String, other: String| format!("{one} / {other}");
    [
        usage.cpu_percent.map_or("--".into(), units::percent),
        pair(units::memory(usage.memory_bytes), units::memory(usage.memory_limit_bytes)),
        units::percent(usage.memory_percent()),
        pair(units::traffic(usage.received_bytes), units::traffic(usage.sent_bytes)),
        pair(units::traffic(usage.read_bytes), units::traffic(usage.written_bytes)),
    ]
}

/// The share of the VM's processors, and of the memory that may be used.
fn bars(meter: &Meter, usage: &Result<Usage>) -> [String; 2] {
    let Ok(usage) = usage else { return [String::new(), String::new()] };
    let cpus = f64::from(meter.pod.state.vm.cpus.max(1));
    let cpu = usage.cpu_percent.unwrap_or(0.0) / 100.0 / cpus;
    [units::bar(cpu, BAR), units::bar(usage.memory_percent() / 100.0, BAR)]
}

/// Docker's properties, and the numbers behind them.
fn lines(meters: &[Meter], usages: &[Result<Usage>]) -> String {
    let known = meters.iter().zip(usages).filter_map(|(meter, usage)| {
        let (state, usage) = (&meter.pod.state, usage.as_ref().ok()?);
        let [cpu, memory, share, net, block] = texts(usage);
        Some(json!({
            "ID": state.id,
            "Name": state.name,
            "CPUPerc": cpu,
            "MemUsage": memory,
            "MemPerc": share,
            "NetIO": net,
            "BlockIO": block,
            "PIDs": usage.pids.to_string(),
            "cpu_percent": usage.cpu_percent,
            "cpu_seconds": usage.cpu_time.as_secs_f64(),
            "memory_bytes": usage.memory_bytes,
            "memory_limit_bytes": usage.memory_limit_bytes,
            "received_bytes": usage.received_bytes,
            "sent_bytes": usage.sent_bytes,
            "read_bytes": usage.read_bytes,
            "written_bytes": usage.written_bytes,
            "pids": usage.pids,
        }))
    });
    known.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::error::Error;
    use crate::pod::state::{State, Vm};

    fn meter() -> Meter {
        let vm = Vm { cpus: 2, memory_mib: 64, ..Vm::default() };
        let state = State::new("0123456789ab".into(), "web".into(), "busybox".into(), vm);
        Meter::new(Pod { dir: PathBuf::new(), state })
    }

    fn busy() -> Usage {
        Usage {
            cpu_percent: Some(100.0),
            memory_bytes: 32 << 20,
            memory_limit_bytes: 64 << 20,
            received_bytes: 1_250,
            pids: 3,
            ..Usage::default()
        }
    }

    #[test]
    fn the_table_is_dockers_and_its_numbers_are_right_aligned() {
        let (meters, usages) = ([meter(), meter()], [Ok(busy()), Err(Error::new("gone"))]);
        let text = table(&meters, &usages, None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "POD ID        NAME    CPU %  MEM USAGE / LIMIT   MEM %      NET I/O  BLOCK I/O  PIDS"
        );
        assert_eq!(
            lines[1],
            "0123456789ab  web   100.00%      32MiB / 64MiB  50.00%  1.25kB / 0B    0B / 0B     3"
        );
        assert!(lines[2].ends_with("  --"), "{text}");
        assert_eq!(text, table(&meters, &usages, Some(90)), "no room for bars");
        let wide = table(&meters, &usages, Some(200));
        assert_eq!(
            wide.matches("█████     ").count(),
            2,
            "half of two CPUs, half of 64 MiB: {wide}"
        );
    }

    #[test]
    fn json_has_dockers_texts_and_the_numbers() {
        let text = lines(&[meter(), meter()], &[Ok(busy()), Err(Error::new("gone"))]);
        let value: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&value["CPUPerc"], &value["PIDs"]), (&json!("100.00%"), &json!("3")));
        assert_eq!((&value["memory_bytes"], &value["pids"]), (&json!(32 << 20), &json!(3)));
    }
}
