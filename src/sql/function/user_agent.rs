//! What a user agent says it is. Browsers, systems and the old crawlers are told by the `woothee` data set; crawlers it
//! does not know by their own name, which by custom ends in "bot", "crawler" or "spider" or stands beside an address to
//! write to; other programs by the name that the text begins with (`curl/8.5.0`).
//!
//! Reading an agent takes microseconds, and a log repeats a few thousand of them. So each thread remembers what it read
//! ([`Known`]), and a column holds each result once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use arrow::array::ArrayRef;
use datafusion::common::Result as DfResult;
use regex::Regex;
use woothee::parser::Parser;

use super::scalar::{Arguments, Scalar, Texts, Type, booleans, unchecked};

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "user_agent_family",
        syntax: "user_agent_family(user_agent)",
        summary: "the browser, crawler or other program that a user agent names",
        sample: ("user_agent_family('Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)')", "GPTBot"),
        forms: &[&[Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| texts(arguments, |agent| agent.family.as_deref()),
    },
    Scalar {
        name: "user_agent_os",
        syntax: "user_agent_os(user_agent)",
        summary: "the operating system that a user agent names",
        sample: (
            "user_agent_os('Mozilla/5.0 (Windows NT 10.0; Win64; x64) Gecko/20100101 Firefox/128.0')",
            "Windows 10",
        ),
        forms: &[&[Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| texts(arguments, |agent| agent.os.as_deref()),
    },
    Scalar {
        name: "user_agent_category",
        syntax: "user_agent_category(user_agent)",
        summary: "pc, smartphone, mobilephone, appliance, crawler or misc",
        sample: ("user_agent_category('Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0')", "pc"),
        forms: &[&[Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| texts(arguments, |agent| agent.category.as_deref()),
    },
    Scalar {
        name: "is_bot",
        syntax: "is_bot(user_agent)",
        summary: "whether a user agent names a crawler, or a program with which scripts ask, such as curl",
        sample: ("is_bot('curl/8.5.0')", "t"),
        forms: &[&[Type::Text]],
        result: Type::Boolean,
        check: unchecked,
        rows: bots,
    },
];

/// What is known of one user agent.
#[derive(Debug, Clone, Default, PartialEq)]
struct Agent {
    family: Option<Box<str>>,
    os: Option<Box<str>>,
    category: Option<Box<str>>,
    is_bot: bool,
}

/// woothee's category of crawlers, and its names for what it cannot tell apart.
const CRAWLER: &str = "crawler";
const SOME_CRAWLER: &str = "misc crawler";
const SOME_LIBRARY: &str = "HTTP Library";

/// Programs whose requests a script makes, in lower case, besides those that woothee knows.
const SCRIPTS: &[&str] = &[
    "aiohttp",
    "axios",
    "curl",
    "go-http-client",
    "got",
    "guzzlehttp",
    "headlesschrome",
    "httpie",
    "httpx",
    "java",
    "libwww-perl",
    "lwp",
    "masscan",
    "nikto",
    "nmap",
    "node-fetch",
    "python",
    "python-httpx",
    "python-requests",
    "python-urllib",
    "python-urllib3",
    "ruby",
    "scrapy",
    "sqlmap",
    "undici",
    "wget",
    "zgrab",
];

/// A crawler's name: a word at the start, behind a blank, a bracket or a semicolon, that ends as they do.
static CRAWLER_NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:^|[ (;])([A-Za-z][A-Za-z0-9_.-]{0,60}?(?i:bot|crawler|spider))(?:[/;,:) ]|$)").expect("it compiles")
});

/// What names itself compatible and says whom to write to is a crawler too, as `(compatible; Name/1.0; +http://…)`.
static CRAWLER_CONTACT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\(compatible; ([A-Za-z][A-Za-z0-9_.-]{0,60})/[^;)]*;[^)]*(?:https?://|@)").expect("it compiles")
});

/// Phones of this make say so where crawlers write their names.
const PHONE: &str = "cubot";

/// Longest name taken from the start of a text.
const MAX_NAME: usize = 64;

fn read(text: &str) -> Agent {
    let told = Parser::new().parse(text).unwrap_or_default();
    let known = |value: &str| (!value.is_empty() && value != woothee::woothee::VALUE_UNKNOWN).then(|| Box::from(value));
    let (family, category) = (known(told.name), known(told.category));
    let crawler = || {
        let found = CRAWLER_NAME.captures(text).or_else(|| CRAWLER_CONTACT.captures(text))?;
        let name = found.get(1)?.as_str();
        (!name.eq_ignore_ascii_case(PHONE)).then(|| Box::from(name))
    };
    let os = known(told.os);
    match (category.as_deref(), family.as_deref()) {
        (Some(CRAWLER), Some(name)) if name != SOME_CRAWLER => Agent { family, os, category, is_bot: true },
        (Some(CRAWLER), _) => {
            Agent { family: crawler().or(first_name(text).map(Box::from)).or(family), os, category, is_bot: true }
        }
        (_, name) => match crawler() {
            Some(name) => Agent { family: Some(name), os: None, category: Some(Box::from(CRAWLER)), is_bot: true },
            None => {
                let library = name == Some(SOME_LIBRARY);
                let first = first_name(text).map(Box::from);
                let is_script = |name: &str| SCRIPTS.iter().any(|script| script.eq_ignore_ascii_case(name));
                let is_bot = library || scripts_in(text) || first.as_deref().is_some_and(is_script);
                let family = if library || family.is_none() { first.or(family) } else { family };
                Agent { family, os, category, is_bot }
            }
        },
    }
}

/// Browsers without a person and scanners, which follow the words of a browser.
fn scripts_in(text: &str) -> bool {
    ["HeadlessChrome/", "zgrab/"].iter().any(|name| text.contains(name))
}

/// The name that a text begins with, as in `curl/8.5.0`. Everything calls itself Mozilla.
fn first_name(text: &str) -> Option<&str> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let (name, behind) = text.split_at(text.find(|c: char| !in_name(c)).unwrap_or(text.len()));
    let ends = behind.is_empty() || behind.starts_with(['/', ' ', ';', '(']);
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.len() <= MAX_NAME;
    (ends && named && name != "Mozilla").then_some(name)
}

/// Agents that a thread remembers. Longer ones, which are made up, are read each time.
const MAX_KNOWN: usize = 8192;
const MAX_KNOWN_BYTES: usize = 512;

/// The agents read by this thread, up to [`MAX_KNOWN`]; then it begins anew.
type Known = HashMap<Box<str>, Agent>;

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// Calls `take` with what is known of a user agent.
fn with<R>(known: &mut Known, text: &str, take: impl FnOnce(&Agent) -> R) -> R {
    if let Some(agent) = known.get(text) {
        return take(agent);
    }
    let agent = read(text);
    if text.len() > MAX_KNOWN_BYTES {
        return take(&agent);
    }
    if known.len() >= MAX_KNOWN {
        known.clear();
    }
    take(known.entry(Box::from(text)).or_insert(agent))
}

fn texts(arguments: &Arguments<'_>, part: fn(&Agent) -> Option<&str>) -> DfResult<ArrayRef> {
    let agents = arguments.text(0)?;
    let mut texts = Texts::new(arguments.rows);
    KNOWN.with_borrow_mut(|known| {
        // The first row of this batch that has the value.
        let mut first: HashMap<Box<str>, usize> = HashMap::new();
        for row in 0..arguments.rows {
            let Some(text) = agents.get(row) else {
                texts.push_null();
                continue;
            };
            with(known, text, |agent| match part(agent) {
                None => texts.push_null(),
                Some(value) => match first.get(value) {
                    Some(row) => texts.push_again(*row),
                    None => {
                        first.insert(Box::from(value), row);
                        texts.push(value);
                    }
                },
            });
        }
    });
    Ok(texts.finish())
}

fn bots(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let agents = arguments.text(0)?;
    KNOWN.with_borrow_mut(|known| {
        Ok(booleans(arguments.rows, |row| agents.get(row).map(|text| with(known, text, |agent| agent.is_bot))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_told_apart() {
        let chrome = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";
        let iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1";
        let google = "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
        let claude =
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)";
        let mobile = "Mozilla/5.0 (Linux; Android 9; Pixel) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/100.0 Mobile Safari/537.36 (compatible; SomeBot/1.0)";
        let phone = "Mozilla/5.0 (Linux; Android 9; CUBOT X19) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/100.0 Mobile Safari/537.36";
        let headless = chrome.replace("Chrome/", "HeadlessChrome/");
        for (text, family, os, category, is_bot) in [
            (chrome, Some("Chrome"), Some("Windows 10"), Some("pc"), false),
            (iphone, Some("Safari"), Some("iPhone"), Some("smartphone"), false),
            (google, Some("Googlebot"), None, Some("crawler"), true),
            (claude, Some("ClaudeBot"), None, Some("crawler"), true),
            (mobile, Some("SomeBot"), None, Some("crawler"), true),
            (phone, Some("Chrome"), Some("Android"), Some("smartphone"), false),
            (&headless, Some("Chrome"), Some("Windows 10"), Some("pc"), true),
            ("Mozilla/5.0 (compatible; Ezooms/1.0; help@moz.com)", Some("Ezooms"), None, Some("crawler"), true),
            ("Mozilla/5.0 (compatible; Konqueror/3.5; Linux)", None, Some("Linux"), Some("pc"), false),
            ("curl/8.5.0", Some("curl"), None, Some("misc"), true),
            ("Wget/1.21", Some("Wget"), None, Some("misc"), true),
            ("python-requests/2.31.0", Some("python-requests"), None, None, true),
            ("Go-http-client/2.0", Some("Go-http-client"), None, None, true),
            ("Mozilla/5.0 zgrab/0.x", None, None, None, true),
            ("AhrefsSiteAudit/6.1", Some("AhrefsSiteAudit"), None, None, false),
            ("bot/1 (+http://b.example)", Some("bot"), None, Some("crawler"), true),
            ("Mozilla/5.0", None, None, None, false),
            ("", None, None, None, false),
            ("-", None, None, None, false),
            ("}__test|O:21:\"x\"", None, None, None, false),
        ] {
            let agent = read(text);
            let got = (agent.family.as_deref(), agent.os.as_deref(), agent.category.as_deref(), agent.is_bot);
            assert_eq!(got, (family, os, category, is_bot), "{text}");
        }
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let mut known = Known::new();
        for number in 0..MAX_KNOWN * 2 {
            with(&mut known, &format!("agent-{number}/1.0"), |agent| assert!(agent.family.is_some()));
        }
        with(&mut known, &"x".repeat(MAX_KNOWN_BYTES + 1), |_| ());
        assert!(known.len() <= MAX_KNOWN);
        assert!(known.keys().all(|text| text.len() <= MAX_KNOWN_BYTES));
    }
}
