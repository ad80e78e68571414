//! A receiver of POSTs that does what a test wants and remembers what it got.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What was asked for: `/in`.
    pub path: String,
    /// By their names in lower case.
    pub headers: HashMap<String, String>,
    /// Unpacked.
    pub body: String,
}

impl Request {
    pub fn key(&self) -> &str {
        &self.headers["idempotency-key"]
    }
}

/// Status and further header lines.
pub type Answer = (u16, &'static str);

type Answering = dyn Fn(&Request) -> Answer + Send + Sync;

/// See the file header.
pub struct Receiver {
    pub address: SocketAddr,
    answer: Arc<Answering>,
    shared: Arc<Shared>,
}

struct Shared {
    /// What was answered with a 2xx.
    accepted: Mutex<Vec<Request>>,
    refused: Mutex<Vec<Request>>,
    open: Mutex<Vec<TcpStream>>,
    down: AtomicBool,
}

impl Receiver {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            accepted: Mutex::default(),
            refused: Mutex::default(),
            open: Mutex::default(),
            down: AtomicBool::new(false),
        });
        let receiver = Receiver { address, answer: Arc::new(answer), shared };
        receiver.listen(listener);
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    fn listen(&self, listener: TcpListener) {
        let (answer, shared) = (Arc::clone(&self.answer), Arc::clone(&self.shared));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.down.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let kept = stream.try_clone().expect("a socket can be shared");
                shared.open.lock().expect("no panic holds it").push(kept);
                let (answer, shared) = (Arc::clone(&answer), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream, &*answer, &shared));
            }
        });
    }

    /// Nobody listens any more, and connections break.
    pub fn go_down(&self) {
        self.shared.down.store(true, Ordering::SeqCst);
        // It waits for a connection.
        drop(TcpStream::connect(self.address));
        for stream in self.shared.open.lock().expect("no panic holds it").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn come_back(&self) {
        self.shared.down.store(false, Ordering::SeqCst);
        self.listen(TcpListener::bind(self.address).expect("the port is still ours"));
    }

    /// What was answered with a 2xx.
    pub fn accepted(&self) -> Vec<Request> {
        self.shared.accepted.lock().expect("no panic holds it").clone()
    }

    pub fn refused(&self) -> Vec<Request> {
        self.shared.refused.lock().expect("no panic holds it").clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.shared.down.load(Ordering::SeqCst) {
            self.go_down();
        }
    }
}

fn serve(stream: TcpStream, answer: &Answering, shared: &Shared) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
    let mut writer = stream;
    while let Some(request) = read(&mut reader) {
        let (status, headers) = answer(&request);
        let list = if (200..300).contains(&status) { &shared.accepted } else { &shared.refused };
        // First: a sender that was told must find it here.
        list.lock().expect("no panic holds it").push(request);
        let body = format!("answer {status}");
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len());
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The next request; `None` when the connection ends.
fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let line = |reader: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_string())
    };
    let path = line(reader)?.split(' ').nth(1)?.to_string();
    let mut headers = HashMap::new();
    loop {
        let line = line(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
    }
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = match headers.get("content-encoding").map(String::as_str) {
        Some("gzip") => std::io::read_to_string(flate2::read::GzDecoder::new(body.as_slice())).expect("it is gzip"),
        _ => String::from_utf8(body).expect("it is text"),
    };
    Some(Request { path, headers, body })
}
