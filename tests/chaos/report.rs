//! The result of a run, in numbers.

use std::{collections::BTreeMap, fmt, time::Duration};

use upload_gateway_core::gateway::SweepReport;

use crate::{
    cluster::Cluster,
    common::{layer::Made, lie::Lie},
    schedule::{Fault, ProcessFault, Topology},
    senders::{Outcome, Sent, reason},
    sweep::Swept,
    uploads::Course,
};

/// The numbers of a run.
#[derive(Debug)]
pub(crate) struct Report {
    /// The seed of the schedule.
    pub(crate) seed: u64,
    /// The topology of Redis.
    pub(crate) topology: Topology,
    /// From the beginning until the last sender has ended.
    pub(crate) time: Duration,
    uploads: BTreeMap<Course, Counts>,
    errors: BTreeMap<String, usize>,
    retries: BTreeMap<String, usize>,
    faults: BTreeMap<&'static str, usize>,
    lies: BTreeMap<String, usize>,
    stale_reads: BTreeMap<String, usize>,
    slow_commits: BTreeMap<String, usize>,
    incidents: BTreeMap<String, usize>,
    /// What was done with stored files.
    deeds: BTreeMap<String, usize>,
    opened_again: usize,
    went_back: usize,
    longest_pause: (Duration, usize),
    stored_bytes: u64,
    swept: SweepReport,
}

/// The uploads of one course.
#[derive(Debug, Default)]
struct Counts {
    all: usize,
    stored: usize,
    failed: usize,
    hung: usize,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(
        seed: u64,
        topology: Topology,
        time: Duration,
        cluster: &Cluster,
        swept: &Swept,
        sent: &[Sent],
    ) -> Self {
        let mut report = Self {
            seed,
            topology,
            time,
            uploads: BTreeMap::new(),
            errors: BTreeMap::new(),
            retries: BTreeMap::new(),
            faults: BTreeMap::new(),
            lies: BTreeMap::new(),
            stale_reads: BTreeMap::new(),
            slow_commits: BTreeMap::new(),
            incidents: BTreeMap::new(),
            deeds: BTreeMap::new(),
            opened_again: 0,
            went_back: 0,
            longest_pause: (Duration::ZERO, 0),
            stored_bytes: 0,
            swept: swept.report,
        };
        for sent in sent {
            report.count(sent);
        }
        for fault in cluster.faults() {
            *report.faults.entry(name(fault)).or_default() += 1;
        }
        for call in cluster.calls() {
            report.count_lie(&call);
        }
        for (_, incident) in cluster.incidents() {
            let count = report.incidents.entry(format!("{incident:?}"));
            *count.or_default() += 1;
        }
        report
    }

    /// Counts what was answered wrongly or late.
    fn count_lie(&mut self, made: &Made) {
        let Some(lie) = made.lie else { return };
        let reads = made.call.plain_name();
        let is_read = ["Head", "Get", "List"]
            .iter()
            .any(|verb| reads.starts_with(verb));
        let (counts, what) = match lie {
            Lie::Late(_) => (&mut self.slow_commits, format!("{lie}")),
            Lie::Stale | Lie::Older => (&mut self.stale_reads, reads.to_owned()),
            // Before the last change there was no object.
            Lie::NotFound | Lie::Code(404, _) if is_read => {
                (&mut self.stale_reads, reads.to_owned())
            }
            _ => (&mut self.lies, format!("{lie}")),
        };
        *counts.entry(what).or_default() += 1;
    }

    fn count(&mut self, sent: &Sent) {
        let counts = self.uploads.entry(sent.upload.course).or_default();
        counts.all += 1;
        let any = |is: fn(&Outcome) -> bool| sent.outcomes.iter().any(is);
        if any(|outcome| matches!(outcome, Outcome::Stored(_))) {
            counts.stored += 1;
            self.stored_bytes += sent.upload.size as u64;
        } else if any(|outcome| matches!(outcome, Outcome::Hung)) {
            counts.hung += 1;
        } else {
            counts.failed += 1;
        }
        for outcome in &sent.outcomes {
            if let Outcome::Failed(error) = outcome {
                *self.errors.entry(reason(error)).or_default() += 1;
            }
        }
        if let Some(handled) = &sent.handled {
            *self.deeds.entry(handled.to_string()).or_default() += 1;
        }
        let journal = &sent.journal;
        for (reason, count) in &journal.retries {
            *self.retries.entry(reason.clone()).or_default() += count;
        }
        self.opened_again += journal.opened.saturating_sub(1);
        self.went_back += journal.went_back.len();
        self.longest_pause = self
            .longest_pause
            .max((journal.longest_pause, sent.upload.number));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, redis) = (self.seed, self.topology.name());
        let seconds = self.time.as_secs_f64();
        writeln!(formatter, "seed {seed}, redis {redis}, {seconds:.0} s")?;
        writeln!(
            formatter,
            "  {:<22}{:>8}{:>10}{:>12}{:>10}",
            "uploads", "all", "complete", "failed", "no answer"
        )?;
        for (course, counts) in &self.uploads {
            let Counts {
                all,
                stored,
                failed,
                hung,
            } = counts;
            let course = format!("{course:?}");
            writeln!(
                formatter,
                "  {course:<22}{all:>8}{stored:>10}{failed:>12}{hung:>10}"
            )?;
        }
        let (pause, number) = self.longest_pause;
        let mebibytes = self.stored_bytes as f64 / f64::from(1 << 20);
        writeln!(formatter, "  faults            {}", list(&self.faults))?;
        writeln!(formatter, "  lies              {}", summed(&self.lies))?;
        writeln!(
            formatter,
            "  stale reads       {}",
            summed(&self.stale_reads)
        )?;
        writeln!(
            formatter,
            "  slow commits      {}",
            summed(&self.slow_commits)
        )?;
        writeln!(formatter, "  incidents         {}", list(&self.incidents))?;
        writeln!(formatter, "  errors            {}", list(&self.errors))?;
        writeln!(formatter, "  retries           {}", list(&self.retries))?;
        writeln!(formatter, "  stored files      {}", list(&self.deeds))?;
        writeln!(formatter, "  opened again      {}", self.opened_again)?;
        writeln!(formatter, "  went back         {}", self.went_back)?;
        writeln!(
            formatter,
            "  longest pause     {:.1} s, of upload {number}",
            pause.as_secs_f64()
        )?;
        writeln!(
            formatter,
            "  stored            {mebibytes:.0} MiB, {:.1} MiB/s",
            mebibytes / seconds
        )?;
        let SweepReport {
            expired,
            completed,
            finished_commits,
            aborted_sessions,
            expired_files,
            ..
        } = self.swept;
        writeln!(
            formatter,
            "  swept up          {expired} aborted, {completed} found complete, {finished_commits} commits finished, \
             {aborted_sessions} forgotten sessions ended, {expired_files} expired files deleted"
        )
    }
}

fn summed(counts: &BTreeMap<String, usize>) -> String {
    let sum: usize = counts.values().sum();
    format!("{sum}: {}", list(counts))
}

fn list<K: fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
    let all: Vec<String> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    match all.is_empty() {
        true => "none".into(),
        false => all.join(", "),
    }
}

fn name(fault: Fault) -> &'static str {
    use crate::proxy::Mode;
    match fault {
        Fault::Gateway(_, ProcessFault::Kill(_)) => "gateways killed",
        Fault::Gateway(_, ProcessFault::Terminate) => "gateways terminated",
        Fault::Gateway(_, ProcessFault::Pause(_)) => "gateways paused",
        Fault::Redis(_, ProcessFault::Pause(_)) => "redis paused",
        Fault::Redis(..) => "redis killed",
        Fault::Flush => "redis flushed",
        Fault::FailOver(_) => "redis failed over",
        Fault::Cut(..) => "cuts",
        Fault::Link(_, Mode::Throttle(_), _) => "throttled links",
        Fault::Link(_, Mode::Silence, _) => "swallowed answers",
        Fault::Link(_, Mode::Refuse, _) => "refusing links",
        Fault::Link(_, Mode::Unavailable(_), _) => "503s",
        Fault::Link(_, Mode::Hold | Mode::Pass, _) => "held links",
        Fault::SlowLink(..) => "links of 1 MB/s",
        Fault::Lie(..) => "times to lie",
        Fault::Denial(..) => "denials by all calls",
        Fault::SlowCommit(..) => "times to be slow",
        Fault::FullDisk(_) => "full disks",
    }
}
