//! A POST of JSON: all there is to say, or a text of the user's with values filled in.
//!
//! ```text
//!     Idempotency-Key: "<id>"                        the same when it comes again
//!     X-Logweir-Signature: sha256=<64 hex digits>    HMAC-SHA-256 (RFC 2104) of the body, with the option secret as its key
//! ```
//!
//! A template is JSON with `{{name}}` inside of its texts; values are escaped to fit there. One that cannot be filled in, or
//! is no JSON then, gives way to the usual body, which says so under `template_error`.

use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;
use sha2::Sha256;

use super::{Failure, Message, Notifier, Spec};
use crate::channel::Channels;
use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};
use crate::outgoing::{HEADERS, SECRET_HEADERS, Target, place_of, timeout, url_of};
use crate::reach;

pub static SPEC: Spec = Spec {
    name: "webhook",
    summary: "JSON by POST, signed if there is a secret",
    options: &[
        OptionSpec::optional("url", OptionKind::Text, None, "where to POST: http:// or https://"),
        OptionSpec::optional(
            "secret_url",
            OptionKind::Secret,
            None,
            "the same where the address itself is a secret: it is shown nowhere",
        ),
        OptionSpec::optional(
            "secret",
            OptionKind::Secret,
            None,
            "key of the signature in the header X-Logweir-Signature, or where it is kept: '${ENV:NAME}', '${FILE:/path}'",
        ),
        OptionSpec::optional(
            "template",
            OptionKind::Text,
            None,
            "the body: JSON with {{name}} in its texts [default: all there is to say]",
        ),
        OptionSpec::optional("authorization", OptionKind::Secret, None, "the header Authorization, such as 'Bearer …'"),
        HEADERS,
        SECRET_HEADERS,
        timeout("10 seconds"),
    ],
    wants_resolved: false,
    shows_series: false,
    takes_reports: true,
    build,
};

fn build(options: &Options, _: &Channels) -> Result<Box<dyn Notifier>> {
    let template = options.text("template").map(str::to_string);
    if let Some(template) = &template {
        let filled = fill(template, &|_| Some("0".to_string())).and_then(|text| check(&text));
        filled.map_err(|why| {
            Error::new(Kind::InvalidParameter, format!("option \"template\": {why}"))
                .with_hint("It is JSON with {{name}} inside of quoted texts, such as {\"text\": \"{{title}}\"}.")
        })?;
    }
    Ok(Box::new(Webhook { address: Address::new(options)?, options: options.clone(), template }))
}

/// Where a notifier POSTs: an address that may be a secret.
pub(super) struct Address {
    target: Target,
    options: Options,
}

impl Address {
    /// Of the options `url` or `secret_url`, and those of [`Target`].
    pub fn new(options: &Options) -> Result<Address> {
        let address = Address { target: Target::new(options)?, options: options.clone() };
        match address.options.text("url") {
            Some(url) => drop(url_of(url, "url")?),
            // A secret that is kept elsewhere may come later.
            None if options.has_secret("secret_url") => {
                if reach::bounds().is_some() {
                    address.url()?;
                }
            }
            None => {
                return Err(Error::new(
                    Kind::InvalidParameter,
                    "this notifier needs the option \"url\" or \"secret_url\"",
                ));
            }
        }
        Ok(address)
    }

    /// The address and what errors call it.
    fn url(&self) -> Result<(Url, String)> {
        match self.options.text("url") {
            Some(url) => {
                let url = url_of(url, "url")?;
                let place = place_of(&url);
                Ok((url, place))
            }
            None => {
                let url = url_of(&self.options.secret("secret_url")?.unwrap_or_default(), "secret_url")?;
                let place = format!("{}://{}/***", url.scheme(), url.host_str().unwrap_or_default());
                Ok((url, place))
            }
        }
    }

    /// POSTs JSON. `path` goes behind the address.
    pub async fn post(&self, path: &str, id: &str, more: HeaderMap, body: Vec<u8>) -> Result<(), Failure> {
        let (mut url, place) = self.url()?;
        if !path.is_empty() {
            url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        }
        let mut headers = more;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let key = HeaderValue::from_str(&format!("\"{id}\""));
        headers.insert("idempotency-key", key.map_err(|err| Error::internal(err.to_string()))?);
        Ok(self.target.post(&url, &place, headers, body).await?)
    }
}

struct Webhook {
    address: Address,
    /// For the secret, which may change.
    options: Options,
    template: Option<String>,
}

/// The template with values that are escaped to stand in texts of JSON.
fn fill(template: &str, value: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let escaped = |name: &str| {
        let quoted = Value::from(value(name)?).to_string();
        Some(quoted[1..quoted.len() - 1].to_string())
    };
    match crate::template::fill(template, &escaped) {
        (text, None) => Ok(text),
        (_, Some(wrong)) => Err(wrong),
    }
}

fn check(text: &str) -> Result<String, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(_) => Ok(text.to_string()),
        Err(err) => Err(format!("it is no JSON: {err}")),
    }
}

/// Hexadecimal HMAC-SHA-256.
fn signature(secret: &str, body: &[u8]) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|err| Error::internal(err.to_string()))?;
    mac.update(body);
    Ok(mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Webhook {
    fn body(&self, message: &Message) -> Vec<u8> {
        let Some(template) = &self.template else { return message.json().to_string().into_bytes() };
        match fill(template, &|name| message.value(name)).and_then(|text| check(&text)) {
            Ok(text) => text.into_bytes(),
            Err(why) => {
                let mut json = message.json();
                json["template_error"] = Value::from(why);
                json.to_string().into_bytes()
            }
        }
    }
}

impl Notifier for Webhook {
    fn tell<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let body = self.body(message);
            let mut headers = HeaderMap::new();
            if let Some(secret) = self.options.secret("secret")? {
                let value = HeaderValue::from_str(&format!("sha256={}", signature(&secret, &body)?));
                headers.insert("x-logweir-signature", value.map_err(|err| Error::internal(err.to_string()))?);
            }
            self.address.post("", &message.id, headers, body).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{message, options};
    use super::*;

    #[test]
    fn signatures_are_those_of_the_rfc() {
        // RFC 4231, test case 2.
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature("Jefe", b"what do ya want for nothing?").unwrap(), expected);
    }

    #[test]
    fn templates_are_filled_in_and_what_is_wrong_with_them_is_said() {
        let webhook = |template: &str| Webhook {
            address: Address::new(&options(&SPEC, &[("url", "http://x/")])).unwrap(),
            options: Options::default(),
            template: Some(template.to_string()),
        };
        let body = |template: &str| -> Value { serde_json::from_slice(&webhook(template).body(&message())).unwrap() };
        assert_eq!(
            body(r#"{"t": "{{title}}: {{summary}}", "n": {{errors}}}"#),
            serde_json::json!({"t": "[FIRING] high_5xx: path=/a, host=NULL: \"5xx\" on <b>/a</b>", "n": 7})
        );
        let wrong = body(r#"{"t": "{{nope}}"}"#);
        assert_eq!(
            (wrong["alert"].as_str(), wrong["template_error"].as_str()),
            (Some("high_5xx"), Some("nothing is known of nope"))
        );
        for (given, expected) in [
            (&[("url", "http://x/"), ("template", "{")][..], "template"),
            (&[("url", "http://x/"), ("template", "{\"a\": \"{{b\"}")], "not closed"),
            (&[], "\"url\" or \"secret_url\""),
            (&[("url", "ftp://x/")], "begins with http"),
        ] {
            let err = (SPEC.build)(&options(&SPEC, given), &Channels::default()).err().unwrap();
            assert!(err.message().contains(expected), "{err}");
        }
    }
}
