//! The exchanges of PlaceOS's newer client (1.x), as they were observed: how it begins, resumes, reports and finishes.

use reqwest::Method;
use serde_json::{Value, json};
use upload_gateway_core::upload::Md5;

use super::client::{Answer, Http, file, text};

/// One run of the client: a page that uploads a file, until it is killed.
pub(crate) struct NewerClient<'a> {
    http: &'a Http,
    file: &'a [u8],
    /// The size of its parts in bytes. It ignores the one of the answers.
    part_size: usize,
    /// Whether it reports the MD5s of the parts that it sent itself. After a failure it reports them empty.
    knows_md5s: bool,
    id: String,
    resumable_id: String,
    done: Vec<usize>,
}

// === impl NewerClient ===

impl<'a> NewerClient<'a> {
    /// Creates the upload, and performs the signature of the answer if it has a URL.
    pub(crate) async fn create(http: &'a Http, file: &'a [u8], part_size: usize) -> Self {
        let step = http.call("POST", "", described(file)).await.json();
        let resumable_id = match step["signature"]["url"].as_str() {
            // It invents one.
            Some("") | None => format!("{:x}", rand::random::<u64>()),
            Some(_) => {
                let answer = http.deliver(&step, Vec::new()).await;
                let (_, rest) = answer.split_once("<UploadId>").expect("an UploadId");
                rest.split_once('<').unwrap().0.to_owned()
            }
        };
        let listed = step["part_list"].as_array().cloned().unwrap_or_default();
        Self {
            http,
            file,
            part_size,
            knows_md5s: true,
            id: text(&step["upload_id"]),
            resumable_id,
            done: listed.iter().map(number).collect(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The parts that the gateway lists, and those that it has sent.
    pub(crate) fn done(&self) -> &[usize] {
        &self.done
    }

    /// Continues after a failure, without another create.
    pub(crate) fn resume(&mut self) {
        self.knows_md5s = false;
    }

    /// Signs and sends up to `count` parts, in the order of their numbers. Returns the refusal of a call.
    pub(crate) async fn send(&mut self, count: usize) -> Result<(), Answer> {
        let parts = self.file.len().div_ceil(self.part_size);
        let missing = (1..=parts).filter(|part| !self.done.contains(part));
        for part in missing.take(count).collect::<Vec<_>>() {
            self.send_part(part).await?;
        }
        Ok(())
    }

    /// Signs one part and sends it.
    pub(crate) async fn send_part(&mut self, part: usize) -> Result<(), Answer> {
        let step = self.sign(part).await?;
        self.http.deliver(&step, self.part(part).to_vec()).await;
        self.done.push(part);
        Ok(())
    }

    /// Signs one part.
    pub(crate) async fn sign(&self, part: usize) -> Result<Value, Answer> {
        let md5 = Md5::of(self.part(part)).to_hex();
        let path = format!("/{}?part={part}&file_id={md5}", self.id);
        let report = match self.done.is_empty() {
            true => json!({"resumable_id": self.resumable_id}),
            false => self.report(),
        };
        let answer = self.http.call("PATCH", &path, report).await;
        if answer.status == 200 {
            Ok(answer.json())
        } else {
            Err(answer)
        }
    }

    /// Finishes: asks for the commit, sends it if it has a URL, and completes.
    pub(crate) async fn finish(&self) -> Result<(), Answer> {
        let path = format!("/{}", self.id);
        let answer = self.http.call("PATCH", &path, self.report()).await;
        if answer.status != 200 {
            return Err(answer);
        }
        let step = answer.json();
        if step["signature"]["url"] != "" {
            // The store may refuse it: another client may have finished.
            let body = text(&step["body"]).into_bytes();
            self.http.try_deliver(&step, body).await?;
        }
        let done = self.http.call("PUT", &path, json!({})).await;
        if done.status == 200 {
            Ok(())
        } else {
            Err(done)
        }
    }

    /// Sends all parts and finishes.
    pub(crate) async fn run(&mut self) -> Result<(), Answer> {
        self.send(usize::MAX).await?;
        self.finish().await
    }

    fn report(&self) -> Value {
        let md5 = |part: usize| match self.knows_md5s && self.has_part(part) {
            true => Md5::of(self.part(part)).to_hex(),
            false => String::new(),
        };
        let data = self
            .done
            .iter()
            .map(|&part| json!({"part": part, "md5": md5(part)}));
        json!({"part_list": self.done, "part_data": data.collect::<Vec<_>>()})
    }

    fn has_part(&self, part: usize) -> bool {
        (part - 1) * self.part_size < self.file.len()
    }

    fn part(&self, part: usize) -> &[u8] {
        self.file.chunks(self.part_size).nth(part - 1).unwrap()
    }
}

/// The file as the client describes it: its `file_id` is the MD5 of the whole file.
pub(crate) fn described(bytes: &[u8]) -> Value {
    file("film.mp4", bytes)
}

fn number(part: &Value) -> usize {
    usize::try_from(part.as_u64().unwrap()).unwrap()
}

impl Http {
    /// Sends a step's signed request; returns the refusal of the store.
    async fn try_deliver(&self, step: &Value, body: Vec<u8>) -> Result<(), Answer> {
        let signature = &step["signature"];
        let method: Method = signature["verb"].as_str().unwrap().parse().unwrap();
        let mut request = reqwest::Client::new()
            .request(method, signature["url"].as_str().unwrap())
            .body(body);
        for (name, value) in signature["headers"].as_object().unwrap() {
            request = request.header(name, value.as_str().unwrap());
        }
        let answer = super::client::answer(request).await;
        if answer.status < 300 {
            Ok(())
        } else {
            Err(answer)
        }
    }
}
