//! A server of HTTP that answers as a test wants, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use hyperstart_registry::Digest;

use super::image::{MANIFEST, Parts};

#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Where the asked range begins.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What Content-Length says, where that is not the truth.
    pub length: Option<usize>,
    /// The body comes again and again, in chunks, without an end.
    pub endless: bool,
    /// After the body nothing happens any more.
    pub stalls: bool,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        let body = body.into();
        Answer { status, headers: Vec::new(), body, length: None, endless: false, stalls: false }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A body that breaks off after so many bytes.
    pub fn cut(mut self, at: usize) -> Answer {
        self.length = Some(self.body.len());
        self.body.truncate(at);
        self
    }

    /// A body that stops after so many bytes, and a connection that stays.
    pub fn stalled(self, at: usize) -> Answer {
        Answer { stalls: true, ..self.cut(at) }
    }
}

pub struct Server {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || {
                    // A client that goes away is one of the things that tests do.
                    if let Some(request) = read(&stream) {
                        seen.lock().unwrap().push(request.clone());
                        write(stream, &answer(&request)).unwrap_or_default();
                    }
                });
            }
        });
        Server { address, requests }
    }

    /// A registry of one image, whose answers about it go through `twist`.
    pub fn with_image(
        image: &Parts,
        twist: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
    ) -> Server {
        let image = image.clone();
        Server::start(move |request| twist(request, honest(&image, request)))
    }

    /// What the one image is called.
    pub fn image(&self) -> String {
        format!("{}/x:1", self.address)
    }

    pub fn requests(&self, part: &str) -> Vec<Request> {
        let all = self.requests.lock().unwrap();
        all.iter().filter(|request| request.path.contains(part)).cloned().collect()
    }
}

/// What an honest registry of this image answers.
fn honest(image: &Parts, request: &Request) -> Answer {
    if request.path.contains("/manifests/") {
        return Answer::new(200, image.manifest.clone()).with("Content-Type", MANIFEST);
    }
    let blob = image.blobs().find(|blob| request.path.ends_with(&Digest::of(blob).to_string()));
    match (blob, request.from()) {
        (Some(blob), Some(start)) => {
            let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
            Answer::new(206, &blob[start..]).with("Content-Range", range)
        }
        (Some(blob), None) => Answer::new(200, blob.clone()),
        (None, _) if request.path == "/v2/" => Answer::new(200, "{}"),
        (None, _) => Answer::new(404, "no such thing"),
    }
}

fn read(mut stream: &TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Some(Request { path, headers })
}

fn write(mut stream: TcpStream, answer: &Answer) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &match answer.endless {
        true => "Transfer-Encoding: chunked\r\n\r\n".into(),
        false => format!("Content-Length: {}\r\n\r\n", answer.length.unwrap_or(answer.body.len())),
    };
    stream.write_all(head.as_bytes())?;
    if !answer.endless {
        stream.write_all(&answer.body)?;
        // The client sends nothing more: this ends when it goes.
        return if answer.stalls { stream.read(&mut [0]).map(drop) } else { Ok(()) };
    }
    loop {
        stream.write_all(format!("{:x}\r\n", answer.body.len()).as_bytes())?;
        stream.write_all(&answer.body)?;
        stream.write_all(b"\r\n")?;
    }
}
