//! The gateway, or another server, as a process of its own, and its CPU time and memory from Linux.

use std::{ffi::OsStr, fs, path::Path, process::Command, time::Duration};

use tempfile::TempDir;

use crate::{Result, common::Server, store::Store};

/// The unit of times in `/proc`: 100 to the second on every Linux this runs on (`getconf CLK_TCK`).
const TICK: Duration = Duration::from_millis(10);

/// A running server, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process(Server);

/// A running gateway, killed when dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// The address of its gRPC listener.
    pub(crate) address: String,
    process: Process,
    _configuration: TempDir,
}

impl Gateway {
    /// With default limits.
    pub(crate) fn start(store: &Store, redis_url: &str) -> Result<Self> {
        Self::configured(store, redis_url, "")
    }

    /// With these keys and tables of the configuration.
    pub(crate) fn configured(store: &Store, redis_url: &str, config: &str) -> Result<Self> {
        let program = env!("CARGO_BIN_EXE_upload-gateway");
        Self::of(program.as_ref(), store, redis_url, config)
    }

    /// With MD5s for the parts.
    pub(crate) fn with_part_md5s(store: &Store, redis_url: &str) -> Result<Self> {
        let program = env!("CARGO_BIN_EXE_upload-gateway");
        let text = store.configuration() + "integrity = \"md5\"\n";
        Self::written(program.as_ref(), &["--redis-url", redis_url], text)
    }

    /// With its state in a file in `data`.
    pub(crate) fn embedded(store: &Store, data: &Path) -> Result<Self> {
        let program = env!("CARGO_BIN_EXE_upload-gateway");
        let config = format!("data_dir = {:?}\n", data.display().to_string());
        Self::run(program.as_ref(), store, &[], &config)
    }

    /// Another build of the gateway.
    pub(crate) fn of(
        program: &OsStr,
        store: &Store,
        redis_url: &str,
        config: &str,
    ) -> Result<Self> {
        Self::run(program, store, &["--redis-url", redis_url], config)
    }

    fn run(program: &OsStr, store: &Store, state: &[&str], config: &str) -> Result<Self> {
        Self::written(program, state, config.to_owned() + &store.configuration())
    }

    fn written(program: &OsStr, state: &[&str], text: String) -> Result<Self> {
        let configuration = TempDir::with_prefix("upload-gateway-bench.")?;
        let file = configuration.path().join("config.toml");
        fs::write(&file, text)?;
        let process = Server::start(|port, directory| {
            let mut command = Command::new(program);
            command
                .env_clear()
                .current_dir(directory)
                .args(["serve", "--http-listen", "127.0.0.1:0"])
                .args(state)
                .args(["--grpc-listen", &format!("127.0.0.1:{port}"), "--config"])
                .arg(&file);
            command
        });
        Ok(Self {
            address: format!("http://127.0.0.1:{}", process.port()),
            process: Process::new(process),
            _configuration: configuration,
        })
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// The CPU time it has used so far, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.process.cpu()
    }

    /// Its peak memory in bytes.
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        self.process.peak_memory()
    }
}

impl Process {
    pub(crate) fn new(server: Server) -> Self {
        Self(server)
    }

    /// Its listen port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    /// The CPU time it has used so far, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        // The second field is the program's name in parentheses; utime and stime are the 14th and 15th.
        let fields = stat.rsplit_once(')').ok_or("no name in /proc/PID/stat")?.1;
        let ticks: Vec<u32> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
        Ok(TICK * ticks.iter().sum())
    }

    /// Its peak memory in bytes.
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.ok_or("no VmHWM in /proc/PID/status")?.parse::<u64>()? * 1024)
    }

    fn proc(&self, file: &str) -> Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/{file}", self.0.id()))?)
    }
}
