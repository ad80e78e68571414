//! What the made-up site consists of and who visits it: tables, no logic. [`super::site`] draws from them by weight.
//!
//! In a path, `#` stands for a number and `~` for a word, small ones and early ones being drawn more often.
//! Addresses of the site and of IPv6 clients are those reserved for documentation (RFC 2606, RFC 3849).

/// Where referrers within the site come from.
pub const ORIGIN: &str = "https://www.example.com";

/// How a path behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Can be linked to, and appears as a referrer.
    Page,
    /// Fetched because a page needs it; browsers keep it and ask whether it has changed.
    Asset,
    /// Made by the application: fails when its backend is down.
    Call,
}

/// One kind of request to the site.
pub struct Endpoint {
    pub weight: u32,
    pub method: &'static str,
    pub path: &'static str,
    /// The status when all goes well.
    pub status: u16,
    /// Size of the answer: `bytes` and up to `spread` more.
    pub bytes: u32,
    pub spread: u32,
    pub nature: Nature,
}

const fn page(weight: u32, path: &'static str, bytes: u32, spread: u32) -> Endpoint {
    Endpoint { weight, method: "GET", path, status: 200, bytes, spread, nature: Nature::Page }
}

const fn asset(weight: u32, path: &'static str, bytes: u32, spread: u32) -> Endpoint {
    Endpoint { weight, method: "GET", path, status: 200, bytes, spread, nature: Nature::Asset }
}

const fn call(weight: u32, method: &'static str, path: &'static str, status: u16, bytes: u32) -> Endpoint {
    Endpoint { weight, method, path, status, bytes, spread: bytes / 2, nature: Nature::Call }
}

pub const ENDPOINTS: &[Endpoint] = &[
    page(90, "/", 14_200, 0),
    page(70, "/products/#", 18_000, 9_000),
    page(55, "/blog/~-~", 9_000, 30_000),
    page(30, "/products/", 22_000, 0),
    page(24, "/docs/~", 7_000, 16_000),
    page(20, "/blog/", 12_400, 0),
    page(10, "/pricing", 8_100, 0),
    page(6, "/about", 5_300, 0),
    page(5, "/contact", 4_900, 0),
    asset(95, "/static/css/site.3f9a1c.css", 38_400, 0),
    asset(90, "/static/js/app.b81d07.js", 141_000, 0),
    asset(160, "/static/img/product/#.jpg", 12_000, 160_000),
    asset(50, "/static/img/~.webp", 4_000, 60_000),
    asset(40, "/static/fonts/inter.woff2", 98_800, 0),
    asset(40, "/favicon.ico", 4_286, 0),
    Endpoint { status: 301, ..page(12, "/docs", 300, 0) },
    Endpoint { status: 206, ..asset(4, "/media/tour.mp4", 1_000_000, 4_000_000) },
    // Few requests, most of the bytes: what the heavy-paths query finds.
    asset(2, "/downloads/handbook.pdf", 8_400_000, 0),
    asset(1, "/downloads/dataset-2025.tar.gz", 180_000_000, 0),
    call(45, "GET", "/search?q=~", 200, 11_000),
    call(12, "GET", "/search?q=~+~&page=#", 200, 9_000),
    call(40, "GET", "/api/v1/products/#", 200, 1_400),
    call(22, "POST", "/api/v1/cart", 200, 310),
    call(6, "POST", "/api/v1/orders", 201, 540),
    call(1, "PUT", "/api/v1/account", 200, 220),
    call(1, "DELETE", "/api/v1/cart/#", 204, 0),
    call(6, "POST", "/login", 302, 0),
    call(3, "GET", "/account", 200, 6_200),
    call(1, "GET", "/export/orders.csv?year=2025", 200, 2_600_000),
];

/// Links that lead nowhere: the path, and the page that still links to it.
pub const BROKEN_LINKS: &[(&str, &str)] = &[
    ("/docs/v1/install", "https://www.example.com/blog/getting-started"),
    ("/docs/v1/install", "https://forum.example.org/t/how-to-install/1841"),
    ("/img/old-logo.png", "https://www.example.com/about"),
    ("/img/old-logo.png", "https://partner.example.net/customers"),
    ("/products/0", "https://www.example.com/products/"),
    ("/press/2019.pdf", "https://news.example.net/2019/11/a-weir-for-logs"),
    ("/downloads/handbook-v1.pdf", "https://www.example.com/docs/"),
    ("/downloads/handbook-v1.pdf", "https://www.google.com/"),
    ("/blog/feed.xml", "-"),
    ("/apple-touch-icon.png", "-"),
    ("/careers.php", "https://jobs.example.org/listing/77"),
    ("/events/2023/", "https://www.bing.com/"),
];

/// Other sites that send visitors. Most visits carry none, or a page of the site.
pub const OUTSIDE_REFERERS: &[&str] = &[
    "https://www.google.com/",
    "https://www.google.com/",
    "https://www.google.com/",
    "https://www.bing.com/",
    "https://duckduckgo.com/",
    "https://news.ycombinator.com/",
    "https://www.reddit.com/r/selfhosted/",
    "https://t.co/Qx3vZ9kLmN",
    "https://www.linkedin.com/",
    "android-app://com.google.android.gm/",
];

/// Agents of people, the common ones repeated.
pub const BROWSERS: &[&str] = &[
    CHROME_WINDOWS,
    CHROME_WINDOWS,
    CHROME_WINDOWS,
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 \
     Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    CHROME_ANDROID,
    CHROME_ANDROID,
    SAFARI_IPHONE,
    SAFARI_IPHONE,
    SAFARI_IPHONE,
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 \
     Safari/605.1.15",
    "Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 \
     Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 \
     Safari/537.36 Edg/142.0.0.0",
    "Mozilla/5.0 (Linux; Android 15; SAMSUNG SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) \
     SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
];
const CHROME_WINDOWS: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
const CHROME_ANDROID: &str =
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36";
const SAFARI_IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 \
    (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1";

/// Crawlers: the first two parts of their addresses, and their agent.
pub const CRAWLERS: &[(&str, &str)] = &[
    ("66.249", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
    ("66.249", "Googlebot-Image/1.0"),
    (
        "40.77",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; \
         +http://www.bing.com/bingbot.htm) Chrome/136.0.0.0 Safari/537.36",
    ),
    ("54.36", "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)"),
    ("185.191", "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)"),
    ("5.255", "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)"),
    (
        "20.171",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
    ),
    ("3.224", "Mozilla/5.0 (compatible; Amazonbot/0.1; +https://developer.amazon.com/support/amazonbot)"),
];

/// What crawlers ask for besides pages.
pub const CRAWLER_FILES: &[&str] = &["/robots.txt", "/robots.txt", "/sitemap.xml"];

/// Agents of scanners, which look for known holes.
pub const SCANNER_AGENTS: &[&str] = &[
    "-",
    "Mozilla/5.0 zgrab/0.x",
    "python-requests/2.32.3",
    "curl/8.5.0",
    "Go-http-client/1.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/78.0.3904.108 \
     Safari/537.36",
];

/// What scanners try, and how the server answers.
pub const PROBES: &[(&str, &str, u16)] = &[
    ("GET", "/wp-login.php", 404),
    ("POST", "/xmlrpc.php", 404),
    ("GET", "/wp-admin/setup-config.php", 404),
    ("GET", "/phpmyadmin/index.php", 404),
    ("GET", "/phpinfo.php", 404),
    ("GET", "/admin.php", 404),
    ("GET", "/.env", 403),
    ("GET", "/.git/config", 403),
    ("GET", "/.aws/credentials", 403),
    ("GET", "/server-status", 403),
    ("GET", "/cgi-bin/.%2e/.%2e/.%2e/.%2e/bin/sh", 400),
    ("GET", "/cgi-bin/%%32%65%%32%65/bin/sh", 400),
    ("GET", "/backup-#.zip", 404),
    ("GET", "/backup-#.sql", 404),
    ("GET", "/~.php", 404),
    ("GET", "/~/.env", 404),
    ("GET", "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php", 404),
    ("GET", "/actuator/health", 404),
    ("GET", "/solr/admin/info/system?wt=json", 404),
    ("GET", "/boaform/admin/formLogin", 404),
    ("GET", "/admin/", 401),
    ("OPTIONS", "/", 405),
    ("TRACE", "/", 405),
    ("GET", "/?id=1%27%20OR%20%271%27=%271", 200),
];

/// Probes of availability: agent and method.
pub const MONITORS: &[(&str, &str)] = &[
    ("Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)", "HEAD"),
    ("Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)", "GET"),
    ("kube-probe/1.31", "GET"),
    ("Blackbox Exporter/0.25.0", "HEAD"),
];

/// People with a login to the protected area, by the name that Apache logs.
pub const STAFF: &[&str] = &["alice", "bob", "carol", "dmitri", "erin", "fatima", "grace", "henrik", "root", "admin"];

/// Names that scanners try at the login; some exist.
pub const GUESSED_NAMES: &[&str] = &["admin", "root", "test", "user", "guest", "oracle", "postgres", "administrator"];

pub const STAFF_PATHS: &[&str] =
    &["/admin/", "/admin/orders", "/admin/orders/#", "/admin/products/#", "/admin/reports/daily"];

/// Words of paths and searches, the most used first.
pub const WORDS: &[&str] = &[
    "logs",
    "stream",
    "window",
    "sql",
    "alerts",
    "install",
    "query",
    "kafka",
    "apache",
    "metrics",
    "errors",
    "dashboard",
    "pump",
    "valve",
    "sensor",
    "weir",
    "flow",
    "river",
    "gauge",
    "meter",
    "filter",
    "pipe",
    "tank",
    "level",
    "storm",
    "delta",
    "parquet",
    "latency",
    "traffic",
    "uptime",
    "release",
    "migration",
    "backup",
    "security",
    "pricing",
    "tutorial",
    "retention",
    "archive",
    "cluster",
    "notes",
];
