//! One gateway: a process of the real binary, which is started again whenever it ends.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use crate::schedule::ProcessFault;

/// How long a gateway may take to end after SIGTERM: the configured drain time, 5 s for final responses, and 15 s for a
/// busy machine.
const LONGEST_END: Duration = Duration::from_secs(crate::cluster::DRAIN_SECONDS + 5 + 15);

/// Its log contains this once it serves.
const IS_READY: &str = "grpc listening on";

/// A gateway that is kept running.
#[derive(Debug)]
pub(crate) struct Gateway {
    config: PathBuf,
    log: PathBuf,
    disk: Disk,
    process: Mutex<Process>,
}

/// Whether the gateway's disk can become full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// It cannot.
    Roomy,
    /// By a limit on the size of its files, which needs no privileges: each write fails, as on a full disk.
    Limited,
}

/// A process, and the size of the log before it.
#[derive(Debug)]
struct Process {
    child: Child,
    log_before: usize,
}

/// What happened to a gateway, beside the faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incident {
    /// It could not start: Redis was unavailable.
    NotStarted,
    /// It ended while it served.
    Crashed,
    /// SIGTERM did not end it in time.
    HungInDrain,
    /// SIGTERM ended it with an error.
    FailedInDrain,
}

// === impl Gateway ===

impl Gateway {
    /// Starts one with a configuration file; its output goes to `log`.
    pub(crate) fn start(config: &Path, log: &Path, disk: Disk) -> io::Result<Self> {
        Ok(Self {
            process: Mutex::new(spawn(config, log, disk)?),
            config: config.to_owned(),
            log: log.to_owned(),
            disk,
        })
    }

    /// Fills its disk, which must be [`Disk::Limited`], for this time.
    pub(crate) async fn fill_disk(&self, time: Duration) -> io::Result<()> {
        // Held, so that the process stays the same.
        let process = self.process.lock().await;
        limit_files(&process.child, "0").await?;
        sleep(time).await;
        limit_files(&process.child, "unlimited").await
    }

    /// Ends it for good.
    pub(crate) async fn stop(&self) -> io::Result<Option<Incident>> {
        terminate(&mut self.process.lock().await.child).await
    }

    /// Injects the fault; afterwards the gateway runs again.
    pub(crate) async fn inject(&self, fault: ProcessFault) -> io::Result<Option<Incident>> {
        let mut process = self.process.lock().await;
        let mut incident = None;
        match fault {
            ProcessFault::Kill(down) => {
                process.child.kill().await?;
                sleep(down).await;
            }
            ProcessFault::Terminate => {
                let has_served = self.has_served(&process);
                incident = terminate(&mut process.child).await?;
                if incident.is_some() && !has_served {
                    incident = Some(Incident::NotStarted);
                }
            }
            ProcessFault::Pause(time) => {
                signal(&process.child, "STOP").await?;
                sleep(time).await;
                signal(&process.child, "CONT").await?;
                return Ok(None);
            }
        }
        *process = spawn(&self.config, &self.log, self.disk)?;
        Ok(incident)
    }

    /// Starts it again if it has ended by itself.
    pub(crate) async fn restart_ended(&self) -> io::Result<Option<Incident>> {
        // `inject` starts it again.
        let Ok(mut process) = self.process.try_lock() else {
            return Ok(None);
        };
        if process.child.try_wait()?.is_none() {
            return Ok(None);
        }
        let has_served = self.has_served(&process);
        sleep(Duration::from_millis(500)).await;
        *process = spawn(&self.config, &self.log, self.disk)?;
        Ok(Some(if has_served {
            Incident::Crashed
        } else {
            Incident::NotStarted
        }))
    }

    /// Waits until it serves; false after a minute.
    pub(crate) async fn is_ready(&self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(60) {
            if self.has_served(&*self.process.lock().await) {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// Whether the process has begun to serve.
    fn has_served(&self, process: &Process) -> bool {
        let log = self.log();
        log.get(process.log_before..)
            .is_some_and(|log| log.contains(IS_READY))
    }

    /// The output of all its processes.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

fn spawn(config: &Path, log: &Path, disk: Disk) -> io::Result<Process> {
    let output = File::options().append(true).create(true).open(log)?;
    let log_before = usize::try_from(output.metadata()?.len()).unwrap_or(usize::MAX);
    let program = env!("CARGO_BIN_EXE_upload-gateway");
    let mut command = match disk {
        Disk::Roomy => {
            let mut command = Command::new(program);
            command.stdout(output.try_clone()?).stderr(output);
            command
        }
        Disk::Limited => {
            // The signal of a write beyond the limit would end the process. A pipe has no limit.
            let (logged, written) = io::pipe()?;
            std::process::Command::new("cat")
                .stdin(logged)
                .stdout(output)
                .spawn()?;
            let mut command = Command::new("sh");
            command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", program]);
            command.stdout(written.try_clone()?).stderr(written);
            command
        }
    };
    let child = command
        .env_clear()
        .arg("serve")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    Ok(Process { child, log_before })
}

/// Sets the limit, in bytes, to which a file may grow.
async fn limit_files(child: &Child, bytes: &str) -> io::Result<()> {
    let Some(id) = child.id() else {
        return Ok(());
    };
    let mut command = Command::new("prlimit");
    // The hard limit remains, so that the other one can be raised again.
    command.args([format!("--pid={id}"), format!("--fsize={bytes}:")]);
    match command.status().await?.success() {
        true => Ok(()),
        false => Err(io::Error::other("prlimit failed")),
    }
}

async fn terminate(child: &mut Child) -> io::Result<Option<Incident>> {
    signal(child, "TERM").await?;
    match timeout(LONGEST_END, child.wait()).await {
        Ok(ended) => {
            let is_clean = ExitStatus::success(&ended?);
            Ok((!is_clean).then_some(Incident::FailedInDrain))
        }
        Err(_) => {
            child.kill().await?;
            Ok(Some(Incident::HungInDrain))
        }
    }
}

/// Sends a signal, unless the process has ended.
async fn signal(child: &Child, name: &str) -> io::Result<()> {
    if let Some(id) = child.id() {
        let kill = format!("kill -{name} {id}");
        Command::new("sh").args(["-c", &kill]).status().await?;
    }
    Ok(())
}
