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
    common::{
        self, AzureBackend, S3Backend, Server,
        layer::{Behind, Layer, Made, Protocol},
        lie::Rule,
    },
    gateway::{Disk, Gateway, Incident},
    lies::{Lying, SETTLE},
    proxy::{Link, Mode},
    redis_servers::RedisServers,
    schedule::{Fault, GATEWAYS, Schedule, Step, Store, Topology, Way},
};

/// The drain time of a gateway.
pub(crate) const DRAIN_SECONDS: u64 = 4;

/// The rate of a slow link, in bytes a second.
const SLOW_LINK: u32 = 1_000_000;

/// All processes.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The directory of configurations and logs.
    pub(crate) directory: PathBuf,
    /// A strict S3 server.
    pub(crate) s3: S3Backend,
    /// Azurite.
    pub(crate) azure: AzureBackend,
    /// The last one has the embedded stores.
    gateways: Vec<Gateway>,
    redis: tokio::sync::Mutex<RedisServers>,
    stores: [Server; 2],
    /// In front of S3, and of Azurite.
    layers: [Layer; 2],
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
    /// From the senders to the gateway with the embedded stores.
    embedded: Link,
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
    pub(crate) async fn start(
        topology: Topology,
        directory: &Path,
        integrity: &str,
    ) -> io::Result<Option<Self>> {
        let redis = tokio::task::block_in_place(|| RedisServers::start(topology));
        let (Some(_), Some(redis), Some((s3_server, s3)), Some((azure_server, azure))) = (
            common::find("prlimit"),
            redis,
            common::private_s3().await,
            common::private_azure().await,
        ) else {
            return Ok(None);
        };
        let stores = [s3_server, azure_server];
        let ports: Vec<_> = (0..=GATEWAYS).map(|_| Ports::free()).collect();
        let layers = layers(&stores).await;
        let links = Links::start(&ports, redis.ports()[0], &layers)?;
        let mut gateways = Vec::new();
        for (index, ports) in ports.iter().enumerate() {
            let file = configuration_file(directory, index);
            let (text, disk) = if index == GATEWAYS {
                (embedded_configuration(ports, directory), Disk::Limited)
            } else {
                let text = configuration(index, ports, &links, &redis, &s3, &azure)?;
                let integrity = format!("allow_http = true\nintegrity = \"{integrity}\"\n");
                (text.replace("allow_http = true\n", &integrity), Disk::Roomy)
            };
            fs::write(&file, text)?;
            let log = directory.join(format!("gateway-{index}.log"));
            gateways.push(Gateway::start(&file, &log, disk)?);
        }
        let cluster = Self {
            directory: directory.to_owned(),
            s3,
            azure,
            gateways,
            redis: tokio::sync::Mutex::new(redis),
            stores,
            layers,
            links,
            topology,
            has_lost_state: AtomicBool::new(false),
            incidents: Mutex::default(),
            faults: Mutex::default(),
        };
        cluster.wait_until_ready().await?;
        Ok(Some(cluster))
    }

    /// The address for the senders to this store.
    pub(crate) fn front(&self, store: Store) -> String {
        let link = match store {
            Store::S3 | Store::Azure => &self.links.front,
            Store::Embedded => &self.links.embedded,
        };
        format!("http://127.0.0.1:{}", link.port())
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
            link.limit(None);
        }
        self.layers.iter().for_each(Layer::be_truthful);
        self.wait_until_ready().await
    }

    /// Waits until the stores have done what they do late, and ends the gateway with the embedded stores, so that they
    /// can be read.
    pub(crate) async fn settle(&self) -> io::Result<()> {
        for layer in &self.layers {
            layer.has_passed_all().await;
        }
        let incident = self.gateways[GATEWAYS].stop().await?;
        self.note(GATEWAYS, incident);
        Ok(())
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

    /// Whether Redis may have an earlier state of a record: a replica that had not received the last writes has become the primary.
    pub(crate) fn may_have_earlier_records(&self) -> bool {
        self.topology == Topology::Sentinel && self.has_lost_state()
    }

    /// What happened to the gateways, beside the faults.
    pub(crate) fn incidents(&self) -> Vec<(usize, Incident)> {
        self.incidents.lock().unwrap().clone()
    }

    /// The faults that were injected.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.faults.lock().unwrap().clone()
    }

    /// The calls of S3 and of Azurite.
    pub(crate) fn calls(&self) -> impl Iterator<Item = Made> {
        self.layers.iter().flat_map(Layer::log)
    }

    /// The configuration file of the first gateway, and that of the one with the embedded stores.
    pub(crate) fn configurations(&self) -> [PathBuf; 2] {
        [0, GATEWAYS].map(|index| configuration_file(&self.directory, index))
    }

    /// The directory of the embedded S3.
    pub(crate) fn embedded_blobs(&self) -> PathBuf {
        data_directory(&self.directory).join("blobs")
    }

    /// The output of each gateway.
    pub(crate) fn gateway_logs(&self) -> Vec<String> {
        self.gateways.iter().map(Gateway::log).collect()
    }

    /// Copies the logs of the servers, and of what they were asked, to those of the gateways.
    pub(crate) async fn keep_logs(&self) -> io::Result<()> {
        let mut logs = self.redis.lock().await.logs();
        let calls: Vec<String> = self.calls().map(|made| line(&made)).collect();
        logs.push(("calls.txt".into(), calls.concat()));
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
            Fault::SlowLink(way, time) => {
                let link = self.links.get(way);
                link.limit(Some(SLOW_LINK));
                sleep(time).await;
                link.limit(None);
            }
            Fault::Lie(store, lying, time) => self.lie(store, &[lying.rule()], time).await,
            Fault::Denial(store, protocol, time) => {
                let all = Lying::all_denials(protocol);
                let rules: Vec<Rule> = all.into_iter().map(Lying::rule).collect();
                self.lie(store, &rules, time).await;
            }
            Fault::SlowCommit(store, lying) => self.layer(store).add([lying.rule()]),
            Fault::FullDisk(time) => self.gateways[GATEWAYS].fill_disk(time).await?,
        }
        Ok(())
    }

    async fn lie(&self, store: Store, rules: &[Rule], time: Duration) {
        self.layer(store).add(rules.iter().cloned());
        sleep(time).await;
        self.layer(store).remove(rules);
    }

    fn layer(&self, store: Store) -> &Layer {
        &self.layers[usize::from(store == Store::Azure)]
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
    /// `ports` are those of the gateways; the last one has the embedded stores.
    fn start(ports: &[Ports], redis: u16, layers: &[Layer; 2]) -> io::Result<Self> {
        let (embedded, replicas) = ports.split_last().expect("there are gateways");
        let replicas: Vec<_> = replicas.iter().map(|ports| ports.grpc).collect();
        let of_gateways = |server: u16| -> io::Result<Vec<Link>> {
            let links = replicas.iter().map(|_| Link::start(0, &[server]));
            links.collect()
        };
        let to_store = |layer: &Layer| -> io::Result<Vec<Link>> {
            let mut links = of_gateways(port(&layer.endpoint)?)?;
            links.push(Link::start(0, &[port(&layer.public_endpoint)?])?);
            Ok(links)
        };
        Ok(Self {
            redis: of_gateways(redis)?,
            s3: to_store(&layers[0])?,
            azure: to_store(&layers[1])?,
            embedded: Link::start(0, &[embedded.grpc])?,
            front: Link::start(0, &replicas)?,
        })
    }

    fn get(&self, way: Way) -> &Link {
        match way {
            Way::Front => &self.front,
            Way::Redis(gateway) => &self.redis[gateway],
            Way::Store(Store::S3, from) => &self.s3[from.unwrap_or(GATEWAYS)],
            Way::Store(Store::Azure, from) => &self.azure[from.unwrap_or(GATEWAYS)],
            Way::Store(Store::Embedded, _) => &self.embedded,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Link> {
        let further = [&self.redis, &self.s3, &self.azure].into_iter().flatten();
        [&self.front, &self.embedded].into_iter().chain(further)
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

async fn layers(stores: &[Server; 2]) -> [Layer; 2] {
    let start = |protocol, server: &Server| {
        let store = Behind::Streamed(format!("http://127.0.0.1:{}", server.port()));
        Layer::start(protocol, store, Vec::new(), Vec::new())
    };
    let [s3, azure] = stores;
    [
        start(Protocol::S3, s3).await,
        start(Protocol::Azure, azure).await,
    ]
}

/// The port in `http://127.0.0.1:PORT`.
fn port(endpoint: &str) -> io::Result<u16> {
    let port = endpoint.rsplit(':').next().unwrap_or_default();
    port.parse().map_err(io::Error::other)
}

/// One call of a store: how long ago it was, what it was, what the store answered, and what the caller got instead.
fn line(made: &Made) -> String {
    let Made {
        call,
        at,
        truth,
        lie,
        ..
    } = made;
    let ago = at.elapsed().as_secs_f64();
    let lie = lie.map(|lie| format!(" instead: {lie}"));
    let lie = lie.unwrap_or_default();
    format!("{ago:>8.2} s ago {} {} {truth}{lie}\n", call.name, call.key)
}

fn data_directory(directory: &Path) -> PathBuf {
    directory.join("embedded")
}

fn configuration_file(directory: &Path, index: usize) -> PathBuf {
    directory.join(format!("gateway-{index}.toml"))
}

/// What the configuration files of all gateways have; `stores` are keys of the top level.
fn common_configuration(ports: &Ports, stores: &str) -> String {
    let Ports { grpc, http } = ports;
    let key = BASE64_STANDARD.encode([7; 32]);
    format!(
        "grpc_listen = \"127.0.0.1:{grpc}\"\nhttp_listen = \"127.0.0.1:{http}\"\n{stores}\
         log.filter = \"info,upload_gateway=debug\"\n\n[limits]\ndrain_seconds = {DRAIN_SECONDS}\n\
         store_retry_timeout_seconds = 8\nidle_timeout_seconds = 20\ncommit_lease_seconds = 40\n\
         store_settle_seconds = {}\n\n\
         [sweeper]\ninterval_seconds = 5\noperations_per_second = 100\n\n\
         [[resume_tokens.keys]]\nid = \"chaos\"\nkey = \"{key}\"\n\n\
         [[records.key]]\nid = \"chaos\"\nkey = \"{key}\"\n",
        SETTLE.as_secs(),
    )
}

/// The text of the configuration file of the gateway with the embedded stores.
fn embedded_configuration(ports: &Ports, directory: &Path) -> String {
    let data = data_directory(directory);
    common_configuration(ports, &format!("data_dir = \"{}\"\n", data.display()))
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
    let redis = redis.configuration(links.redis[index].port());
    let port = |store, from| links.get(Way::Store(store, from)).port();
    let mut text = common_configuration(ports, &redis);
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
