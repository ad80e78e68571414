//! A mail server on this machine: takes mails by SMTP and keeps them, or falls silent when a test wants that.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// See the file header.
pub struct MailServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mails: Mutex<Vec<String>>,
    /// Accepts connections and says nothing.
    stalls: AtomicBool,
    stopped: AtomicBool,
}

impl MailServer {
    pub fn start() -> MailServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            mails: Mutex::default(),
            stalls: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let server = MailServer { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&shared);
                // A client that goes away in the middle is no failure of the test.
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        server
    }

    pub fn stall(&self, stalls: bool) {
        self.shared.stalls.store(stalls, Ordering::SeqCst);
    }

    /// All mails so far, as they came.
    pub fn mails(&self) -> Vec<String> {
        self.shared.mails.lock().expect("no panic holds it").clone()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // It waits for a connection.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    if shared.stalls.load(Ordering::SeqCst) {
        // Until the client gives up.
        lines.for_each(drop);
        return Ok(());
    }
    stream.write_all(b"220 mail.test ESMTP\r\n")?;
    while let Some(line) = lines.next() {
        let line = line?;
        let word = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match word.as_str() {
            "EHLO" => "250-mail.test\r\n250 8BITMIME",
            "HELO" | "MAIL" | "RCPT" | "RSET" | "NOOP" => "250 ok",
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                let mut mail = String::new();
                for line in lines.by_ref() {
                    let line = line?;
                    if line == "." {
                        break;
                    }
                    mail += line.strip_prefix('.').unwrap_or(&line);
                    mail.push('\n');
                }
                shared.mails.lock().expect("no panic holds it").push(mail);
                "250 taken"
            }
            "QUIT" => "221 bye",
            _ => "502 what?",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes())?;
        if word == "QUIT" {
            return Ok(());
        }
    }
    Ok(())
}
