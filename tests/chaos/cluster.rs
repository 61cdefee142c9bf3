//! All processes: gateways, Redis, stores, and the links between them.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    common::{self, AzureBackend, S3Backend, Server},
    gateway::{Gateway, Incident},
    proxy::{Link, Mode},
    redis_servers::RedisServers,
    schedule::{Fault, GATEWAYS, Schedule, Step, Store, Topology, Way},
};

/// The drain time of a gateway.
pub(crate) const DRAIN_SECONDS: u64 = 4;

/// All processes.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The directory of configurations and logs.
    pub(crate) directory: PathBuf,
    /// A strict S3 server.
    pub(crate) s3: S3Backend,
    /// Azurite.
    pub(crate) azure: AzureBackend,
    gateways: Vec<Gateway>,
    redis: tokio::sync::Mutex<RedisServers>,
    stores: [Server; 2],
    links: Links,
    topology: Topology,
    has_lost_state: AtomicBool,
    incidents: Mutex<Vec<(usize, Incident)>>,
    faults: Mutex<Vec<Fault>>,
}

#[derive(Debug)]
struct Links {
    front: Link,
    /// One for each gateway.
    redis: Vec<Link>,
    /// For each store, one from each gateway, and the last one from the senders.
    s3: Vec<Link>,
    azure: Vec<Link>,
}

/// The ports in the configuration of one gateway.
#[derive(Debug)]
struct Ports {
    grpc: u16,
    http: u16,
}

// === impl Cluster ===

impl Cluster {
    /// Starts everything; `None` if a program is missing.
    pub(crate) async fn start(topology: Topology, directory: &Path) -> io::Result<Option<Self>> {
        let redis = tokio::task::block_in_place(|| RedisServers::start(topology));
        let (Some(redis), Some((s3_server, s3)), Some((azure_server, azure))) = (
            redis,
            common::private_s3().await,
            common::private_azure().await,
        ) else {
            return Ok(None);
        };
        let stores = [s3_server, azure_server];
        let ports: Vec<_> = (0..GATEWAYS).map(|_| Ports::free()).collect();
        let links = Links::start(&ports, redis.ports()[0], &stores).await?;
        let mut gateways = Vec::new();
        for (index, ports) in ports.iter().enumerate() {
            let file = configuration_file(directory, index);
            let text = configuration(index, ports, &links, &redis, &s3, &azure)?;
            fs::write(&file, text)?;
            let log = directory.join(format!("gateway-{index}.log"));
            gateways.push(Gateway::start(&file, &log)?);
        }
        let cluster = Self {
            directory: directory.to_owned(),
            s3,
            azure,
            gateways,
            redis: tokio::sync::Mutex::new(redis),
            stores,
            links,
            topology,
            has_lost_state: AtomicBool::new(false),
            incidents: Mutex::default(),
            faults: Mutex::default(),
        };
        cluster.wait_until_ready().await?;
        Ok(Some(cluster))
    }

    /// The address for the senders.
    pub(crate) fn front(&self) -> String {
        format!("http://127.0.0.1:{}", self.links.front.port())
    }

    /// Injects the faults of `schedule`; afterwards everything runs again.
    pub(crate) async fn inject(&self, schedule: &Schedule) -> io::Result<()> {
        let begin = Instant::now();
        let lanes = schedule
            .lanes
            .iter()
            .map(|lane| self.inject_lane(lane, begin));
        try_join_all(lanes).await?;
        sleep_until(begin + schedule.time).await;
        for link in self.links.all() {
            link.set(Mode::Pass);
        }
        self.wait_until_ready().await
    }

    /// Restarts gateways that end by themselves; runs until dropped.
    pub(crate) async fn restart_ended(&self) -> io::Result<()> {
        loop {
            for (index, gateway) in self.gateways.iter().enumerate() {
                let incident = gateway.restart_ended().await?;
                self.note(index, incident);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Whether Redis has lost writes that it had acknowledged.
    pub(crate) fn has_lost_state(&self) -> bool {
        self.has_lost_state.load(Ordering::Relaxed)
    }

    /// Whether Redis may have lost the index entry of a due upload and kept its record: the servers of a Cluster are
    /// not flushed at the same moment. Such a record expires with its key in Redis.
    pub(crate) fn may_forget_what_is_due(&self) -> bool {
        self.topology == Topology::Cluster && self.has_lost_state()
    }

    /// What happened to the gateways, beside the faults.
    pub(crate) fn incidents(&self) -> Vec<(usize, Incident)> {
        self.incidents.lock().unwrap().clone()
    }

    /// The faults that were injected.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.faults.lock().unwrap().clone()
    }

    /// The configuration file of the first gateway.
    pub(crate) fn configuration(&self) -> PathBuf {
        configuration_file(&self.directory, 0)
    }

    /// The output of each gateway.
    pub(crate) fn gateway_logs(&self) -> Vec<String> {
        self.gateways.iter().map(Gateway::log).collect()
    }

    /// Copies the logs of the servers to those of the gateways.
    pub(crate) async fn keep_logs(&self) -> io::Result<()> {
        let mut logs = self.redis.lock().await.logs();
        let names = ["versitygw.log", "azurite.log"];
        logs.extend(
            names
                .iter()
                .zip(&self.stores)
                .map(|(name, server)| ((*name).to_owned(), server.log())),
        );
        for (name, text) in logs {
            fs::write(self.directory.join(name), text)?;
        }
        Ok(())
    }

    async fn wait_until_ready(&self) -> io::Result<()> {
        let restarting = self.restart_ended();
        let ready = join_all(self.gateways.iter().map(Gateway::is_ready));
        tokio::select! {
            ready = ready => match ready.iter().all(|ready| *ready) {
                true => Ok(()),
                false => Err(io::Error::other("a gateway does not start")),
            },
            failed = restarting => failed,
        }
    }

    async fn inject_lane(&self, lane: &[Step], begin: Instant) -> io::Result<()> {
        for step in lane {
            sleep_until(begin + step.at).await;
            self.faults.lock().unwrap().push(step.fault);
            self.inject_fault(step.fault).await?;
        }
        Ok(())
    }

    async fn inject_fault(&self, fault: Fault) -> io::Result<()> {
        match fault {
            Fault::Gateway(index, fault) => {
                let incident = self.gateways[index].inject(fault).await?;
                self.note(index, incident);
            }
            Fault::Redis(number, fault) => {
                // A paused or killed primary is replaced: its last writes are lost.
                self.lose_state(self.topology == Topology::Sentinel);
                self.redis.lock().await.inject(number, fault).await;
            }
            Fault::Flush => {
                self.lose_state(true);
                self.redis.lock().await.flush().await;
            }
            Fault::FailOver(cut_off) => {
                self.lose_state(true);
                self.redis.lock().await.fail_over(cut_off).await;
            }
            Fault::Cut(way, every) => self.links.get(way).cut(every),
            Fault::Link(way, mode, time) => {
                let link = self.links.get(way);
                link.set(mode);
                sleep(time).await;
                link.set(Mode::Pass);
            }
        }
        Ok(())
    }

    fn lose_state(&self, is_lost: bool) {
        self.has_lost_state.fetch_or(is_lost, Ordering::Relaxed);
    }

    fn note(&self, index: usize, incident: Option<Incident>) {
        let incident = incident.map(|incident| (index, incident));
        self.incidents.lock().unwrap().extend(incident);
    }
}

// === impl Links ===

impl Links {
    async fn start(gateways: &[Ports], redis: u16, stores: &[Server; 2]) -> io::Result<Self> {
        let start = async |server: u16| {
            let mut links = Vec::new();
            for _ in 0..=GATEWAYS {
                links.push(Link::start(0, &[server]).await?);
            }
            Ok::<_, io::Error>(links)
        };
        let replicas: Vec<_> = gateways.iter().map(|ports| ports.grpc).collect();
        Ok(Self {
            front: Link::start(0, &replicas).await?,
            redis: start(redis).await?,
            s3: start(stores[0].port()).await?,
            azure: start(stores[1].port()).await?,
        })
    }

    fn get(&self, way: Way) -> &Link {
        match way {
            Way::Front => &self.front,
            Way::Redis(gateway) => &self.redis[gateway],
            Way::Store(Store::S3, from) => &self.s3[from.unwrap_or(GATEWAYS)],
            Way::Store(Store::Azure, from) => &self.azure[from.unwrap_or(GATEWAYS)],
        }
    }

    fn all(&self) -> impl Iterator<Item = &Link> {
        let further = [&self.redis, &self.s3, &self.azure].into_iter().flatten();
        std::iter::once(&self.front).chain(further)
    }
}

// === impl Ports ===

impl Ports {
    fn free() -> Self {
        Self {
            grpc: common::free_port(),
            http: common::free_port(),
        }
    }
}

fn configuration_file(directory: &Path, index: usize) -> PathBuf {
    directory.join(format!("gateway-{index}.toml"))
}

/// The text of the configuration file of one gateway.
fn configuration(
    index: usize,
    ports: &Ports,
    links: &Links,
    redis: &RedisServers,
    s3: &S3Backend,
    azure: &AzureBackend,
) -> io::Result<String> {
    let Ports { grpc, http } = ports;
    let port = |store, from| links.get(Way::Store(store, from)).port();
    let mut text = format!(
        "grpc_listen = \"127.0.0.1:{grpc}\"\nhttp_listen = \"127.0.0.1:{http}\"\n{}\
         log.filter = \"info,upload_gateway=debug\"\n\n[limits]\ndrain_seconds = {DRAIN_SECONDS}\n\
         store_retry_timeout_seconds = 8\nidle_timeout_seconds = 20\ncommit_lease_seconds = 40\n\n\
         [sweeper]\ninterval_seconds = 5\noperations_per_second = 100\n\n\
         [[resume_tokens.keys]]\nid = \"chaos\"\nkey = \"{}\"\n",
        redis.configuration(links.redis[index].port()),
        BASE64_STANDARD.encode([7; 32]),
    );
    let written = write!(
        text,
        "\n[[storage]]\nid = \"s3\"\nkind = \"s3\"\ndefault = true\nallow_http = true\n\
         bucket = \"{}\"\nregion = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"\n\
         endpoint = \"http://127.0.0.1:{}\"\npublic_endpoint = \"http://127.0.0.1:{}\"\n",
        s3.bucket,
        s3.region,
        s3.access_key,
        s3.secret_key,
        port(Store::S3, Some(index)),
        port(Store::S3, None),
    );
    written.map_err(io::Error::other)?;
    let account = azure.account;
    let written = write!(
        text,
        "\n[[storage]]\nid = \"azure\"\nkind = \"azure\"\nallow_http = true\n\
         account = \"{account}\"\naccount_key = \"{}\"\ncontainer = \"{}\"\n\
         endpoint = \"http://127.0.0.1:{}/{account}\"\npublic_endpoint = \"http://127.0.0.1:{}/{account}\"\n",
        azure.account_key,
        azure.container,
        port(Store::Azure, Some(index)),
        port(Store::Azure, None),
    );
    written.map_err(io::Error::other)?;
    Ok(text)
}
