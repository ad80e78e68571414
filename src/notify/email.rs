//! Mail by SMTP (RFC 5321): a text part and an HTML part that say the same, with tables and charts. [`html`] is the page of an
//! alert, [`report`] that of a report.
//!
//! `Message-ID` is made of the message's id, so a mail that comes twice can be known as one. A server that accepts a
//! connection and then says nothing is given up after `timeout`; whether it has taken the mail is then not known, and it
//! comes again.
//!
//! ```text
//!     tls = 'auto'      STARTTLS (RFC 3207) if the server offers it; with a password it has to
//!     tls = 'starttls'  nothing is said without
//!     tls = 'tls'       TLS from the first byte (RFC 8314), usually port 465
//!     tls = 'none'      in the clear; no password is sent to other machines so
//! ```

mod html;
mod report;

use std::time::Duration;

use futures::future::BoxFuture;
use lettre::message::header::ContentType;
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::chart;
use super::{Content, Failure, Message, Notifier, Spec};
use crate::channel::Channels;
use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};

pub static SPEC: Spec = Spec {
    name: "email",
    summary: "mail by SMTP: text and HTML, with tables and charts",
    options: &[
        OptionSpec::required("to", OptionKind::Text, "addresses, separated by commas"),
        OptionSpec::optional("cc", OptionKind::Text, None, "further addresses"),
        OptionSpec::optional("from", OptionKind::Text, Some("Logweir <logweir@localhost>"), "the sender's address"),
        OptionSpec::optional("host", OptionKind::Hosts, Some("localhost"), "the mail server"),
        OptionSpec::optional(
            "port",
            OptionKind::Integer,
            None,
            "its port [default: 465 with tls = 'tls', 587 with a user, else 25]",
        ),
        OptionSpec::optional(
            "tls",
            OptionKind::Choice(&["auto", "starttls", "tls", "none"]),
            Some("auto"),
            "STARTTLS if offered ('auto'; always with a password), STARTTLS, TLS from the beginning, or none",
        ),
        OptionSpec::optional(
            "ca_file",
            OptionKind::Path,
            None,
            "PEM file of a certificate authority to trust besides the usual ones",
        ),
        OptionSpec::optional("user", OptionKind::Text, None, "name to log in with"),
        OptionSpec::optional(
            "password",
            OptionKind::Secret,
            None,
            "password to log in with, or where it is kept: '${ENV:NAME}', '${FILE:/path}'",
        ),
        OptionSpec::optional("subject", OptionKind::Text, Some("{{title}}"), "the subject, with {{name}} filled in"),
        OptionSpec::optional(
            "timeout",
            OptionKind::Interval,
            Some("30 seconds"),
            "a mail must be taken within this time",
        ),
    ],
    wants_resolved: false,
    shows_series: true,
    takes_reports: true,
    build,
};

/// Codes of lasting failures that are about us and not about the mail: they can be put right.
const ABOUT_US: [u16; 8] = [500, 502, 521, 530, 534, 535, 538, 554];

fn build(options: &Options, _: &Channels) -> Result<Box<dyn Notifier>> {
    let wrong = |option: &str, what: String| Error::new(Kind::InvalidParameter, format!("option \"{option}\": {what}"));
    let boxes = |option: &str| -> Result<Vec<Mailbox>> {
        let all = options.text(option).unwrap_or_default().split(',').map(str::trim).filter(|text| !text.is_empty());
        let one = |text: &str| {
            text.parse::<Mailbox>().map_err(|err| wrong(option, format!("\"{text}\" is no address: {err}")))
        };
        all.map(one).collect()
    };
    let (to, cc, mut from) = (boxes("to")?, boxes("cc")?, boxes("from")?);
    if to.is_empty() {
        return Err(wrong("to", "there is no address".into()));
    }
    let (Some(from), true) = (from.pop(), from.is_empty()) else {
        return Err(wrong("from", "it takes one address".into()));
    };
    let host = options.text("host").unwrap_or("localhost").to_string();
    let tls = options.text("tls").unwrap_or("auto").to_string();
    let logs_in = options.has_secret("password");
    if logs_in && options.text("user").is_none() {
        return Err(Error::new(Kind::InvalidParameter, "a password needs the option \"user\""));
    }
    let is_near = ["localhost", "127.0.0.1", "::1"].contains(&host.as_str());
    if logs_in && tls == "none" && !is_near {
        return Err(wrong("tls", "without it the password would go over the network in the clear".into())
            .with_hint("Use 'starttls' or 'tls'."));
    }
    let port = match (options.integer("port"), tls.as_str(), logs_in) {
        (Some(port), _, _) => u16::try_from(port).map_err(|_| wrong("port", format!("{port} is none")))?,
        (None, "tls", _) => 465,
        (None, _, true) => 587,
        (None, _, false) => 25,
    };
    let timeout = options.interval("timeout").unwrap_or(Duration::from_secs(30));
    // TLS needs one; whoever came first has chosen.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    Ok(Box::new(Email { to, cc, from, host, port, tls, logs_in, timeout, options: options.clone() }))
}

struct Email {
    to: Vec<Mailbox>,
    cc: Vec<Mailbox>,
    from: Mailbox,
    host: String,
    port: u16,
    tls: String,
    logs_in: bool,
    timeout: Duration,
    /// For the secret, which may change.
    options: Options,
}

impl Email {
    fn tls(&self) -> Result<Tls> {
        if self.tls == "none" {
            return Ok(Tls::None);
        }
        let mut parameters = TlsParameters::builder(self.host.clone());
        if let Some(path) = self.options.text("ca_file") {
            let path = std::path::Path::new(path);
            let pem = std::fs::read(path).map_err(|err| Error::io("read", path, &err))?;
            let certificate = Certificate::from_pem(&pem).map_err(|err| {
                let message = format!("{:?} holds no certificate: {err}", path.display().to_string());
                Error::new(Kind::InvalidParameter, message)
            })?;
            parameters = parameters.add_root_certificate(certificate);
        }
        let parameters = parameters.build().map_err(|err| Error::internal(format!("TLS: {err}")))?;
        Ok(match self.tls.as_str() {
            "tls" => Tls::Wrapper(parameters),
            "auto" if !self.logs_in => Tls::Opportunistic(parameters),
            _ => Tls::Required(parameters),
        })
    }

    fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(self.host.clone())
            .port(self.port)
            .timeout(Some(self.timeout))
            .tls(self.tls()?);
        if let (Some(user), Some(password)) = (self.options.text("user"), self.options.secret("password")?) {
            builder = builder.credentials(Credentials::new(user.to_string(), password));
        }
        Ok(builder.build())
    }

    fn mail(&self, message: &Message) -> Result<lettre::Message> {
        let subject = self.options.text("subject").unwrap_or("{{title}}");
        let subject = crate::template::fill_or_say(subject, &|name| message.value(name));
        let domain = self.from.email.domain();
        let mut mail = lettre::Message::builder()
            .from(self.from.clone())
            .subject(subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>())
            .message_id(Some(format!("<{}@{domain}>", message.id)));
        for to in &self.to {
            mail = mail.to(to.clone());
        }
        for cc in &self.cc {
            mail = mail.cc(cc.clone());
        }
        let (html, pictures) = page(message);
        let html = SinglePart::html(html);
        let text = SinglePart::plain(format!("{}\n\nid {}\n", message.text(), message.id));
        let parts = match pictures.is_empty() {
            true => MultiPart::alternative().singlepart(text).singlepart(html),
            false => {
                let png = ContentType::parse("image/png").map_err(|err| Error::internal(err.to_string()))?;
                let mut related = MultiPart::related().singlepart(html);
                for (id, picture) in pictures {
                    related = related.singlepart(Attachment::new_inline(id).body(picture, png.clone()));
                }
                MultiPart::alternative().singlepart(text).multipart(related)
            }
        };
        mail.multipart(parts).map_err(|err| Error::new(Kind::InvalidParameter, format!("no mail could be made: {err}")))
    }
}

impl Notifier for Email {
    fn tell<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let (transport, mail) = (self.transport()?, self.mail(message)?);
            let place = format!("{}:{}", self.host, self.port);
            match tokio::time::timeout(self.timeout, transport.send(mail)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(err)) => {
                    let code = err.status().and_then(|code| code.to_string().parse::<u16>().ok());
                    let failed = Error::new(Kind::Io, format!("mail server {place}: {err}"));
                    let failed = match code {
                        Some(530 | 534 | 535 | 538) => failed.with_hint("Check the options user, password and tls."),
                        Some(_) | None => failed,
                    };
                    match code {
                        Some(code) if err.is_permanent() && !ABOUT_US.contains(&code) => Err(Failure::Refused(failed)),
                        Some(_) | None => Err(Failure::Again(failed, None)),
                    }
                }
                Err(_) => {
                    let message = format!("mail server {place} did not take the mail within {:?}", self.timeout);
                    Err(Error::new(Kind::Unreachable, message).into())
                }
            }
        })
    }
}

/// The page of a message, and its pictures by their Content-IDs.
fn page(message: &Message) -> (String, Vec<(String, Vec<u8>)>) {
    match &message.content {
        Content::Report(report) => report::html(report, &message.id),
        Content::Alert(alert) => {
            let picture = alert.series.as_ref().and_then(chart::png);
            let html = html::alert(alert, &message.title(), message.made, &message.id, picture.is_some());
            (html, picture.into_iter().map(|png| ("chart".to_string(), png)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Series;
    use super::super::tests::{alert, message_of, options};
    use super::*;

    fn email(given: &[(&str, &str)]) -> Result<Box<dyn Notifier>> {
        build(&options(&SPEC, given), &Channels::default())
    }

    #[test]
    fn a_mail_has_text_html_and_a_picture_and_escapes_what_it_shows() {
        let given = options(&SPEC, &[("to", "A <a@x.org>, b@x.org"), ("subject", "{{alert}}\r\nBcc: z@x.org")]);
        let email = Email {
            to: vec!["A <a@x.org>".parse().unwrap(), "b@x.org".parse().unwrap()],
            cc: Vec::new(),
            from: "logweir@x.org".parse().unwrap(),
            host: "localhost".into(),
            port: 25,
            tls: "none".into(),
            logs_in: false,
            timeout: Duration::from_secs(1),
            options: given,
        };
        let mut alert = alert();
        alert.series = Some(Series { name: "errors".into(), points: vec![(0, 1.0), (60_000_000, 7.0)] });
        let message = message_of(Content::Alert(alert));
        let mail = String::from_utf8(email.mail(&message).unwrap().formatted()).unwrap();
        let head = mail.split("\r\n\r\n").next().unwrap();
        assert!(
            head.contains("Message-ID: <00000000000000ff@x.org>") && head.contains("To: \"A\" <a@x.org>, b@x.org")
                || head.contains("To: A <a@x.org>, b@x.org"),
            "{head}"
        );
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        for part in ["text/plain", "text/html", "image/png", "Content-ID: <chart>"] {
            assert!(mail.contains(part), "no {part}: {mail}");
        }
        let (html, _) = page(&message);
        assert!(html.contains("&lt;b&gt;/a&lt;/b&gt;") && !html.contains("<b>/a</b>"), "{html}");
    }

    #[test]
    fn what_cannot_work_is_refused_at_once() {
        email(&[("to", "ops@example.org")]).unwrap();
        for (given, expected) in [
            (&[("to", "nobody")][..], "is no address"),
            (&[("to", " , ")], "there is no address"),
            (&[("to", "a@x.org"), ("from", "a@x.org, b@x.org")], "one address"),
            (&[("to", "a@x.org"), ("password", "hunter2")], "needs the option \"user\""),
            (
                &[("to", "a@x.org"), ("host", "mail.x.org"), ("user", "u"), ("password", "hunter2"), ("tls", "none")],
                "in the clear",
            ),
            (&[("to", "a@x.org"), ("port", "70000")], "70000"),
        ] {
            let err = email(given).err().unwrap();
            assert!(err.message().contains(expected) && !err.to_string().contains("hunter2"), "{err}");
        }
    }
}
