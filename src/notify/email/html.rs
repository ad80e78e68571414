//! The page of a mail. Mail programs know tables and styles that stand with the elements, and little more; a telephone has
//! some 350 pixels, so nothing is wider than it has to be.

use chrono_tz::Tz;

use super::super::report::moment;
use super::super::{Alert, Item, Status, plain};
use crate::time::Micros;

/// Instances that the table shows.
const MOST: usize = 50;

/// Text that means itself.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A page: a band with a title and a line below it, a body, and the message's id. All but the color and the body is plain
/// text.
pub fn page(color: &str, (title, line): (&str, &str), body: &str, id: &str) -> String {
    format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title></head>\
         <body style=\"margin:0;padding:12px;background:#eef0f3;\
         font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;color:#1f2933\">\
         <table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" style=\"max-width:720px;margin:auto;\
         background:#fff;border:1px solid #d9dde3\">\
         <tr><td style=\"background:{color};color:#fff;padding:14px 18px\">\
         <div style=\"font-size:19px;font-weight:600;line-height:1.3;word-break:break-word\">{title}</div>\
         <div style=\"font-size:13px;line-height:1.5;opacity:.9\">{line}</div></td></tr>\
         <tr><td style=\"padding:4px 18px 14px\">{body}\
         <div style=\"margin-top:18px;font-size:11px;color:#9aa5b1\">Logweir · {id}</div></td></tr></table></body></html>\n",
        title = escaped(title),
        line = escaped(line),
    )
}

/// A picture of the mail, by its Content-ID.
pub fn picture(id: &str, says: &str) -> String {
    format!(
        "<img src=\"cid:{id}\" width=\"640\" alt=\"{}\" style=\"display:block;width:100%;max-width:684px;height:auto\">",
        escaped(says)
    )
}

fn time(time: Micros) -> String {
    format!("{} UTC", moment(time, &Tz::UTC))
}

/// The page of an alert.
pub fn alert(alert: &Alert, title: &str, made: Micros, id: &str, has_picture: bool) -> String {
    let color = match (alert.status(), alert.severity.as_str()) {
        (Status::Resolved, _) => "#2e7d32",
        (Status::Test, _) | (_, "info") => "#1565c0",
        (_, "warning") => "#c25700",
        (Status::Firing | Status::Error, _) => "#c62828",
    };
    let mut body = String::new();
    if let (true, Some(series)) = (has_picture, &alert.series) {
        // It was looked up for the first.
        let of = alert.items.first().map(Item::key_text).unwrap_or_default();
        body += &format!(
            "<div style=\"margin:12px 0 4px;font-size:13px;color:#7b8794\"><b style=\"color:#52606d\">{}</b> {}</div>",
            escaped(&series.name),
            escaped(&of),
        );
        body += &picture("chart", &format!("{} over time", series.name));
    }
    body += "<table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" style=\"border-collapse:collapse;margin-top:8px\">";
    alert.items.iter().take(MOST).for_each(|one| body += &item(one));
    body += "</table>";
    let rest = alert.count() - alert.items.len().min(MOST) as u64;
    if rest > 0 {
        body += &format!("<p style=\"font-size:13px\">and {rest} more</p>");
    }
    page(color, (title, &format!("severity {} · {}", alert.severity, time(made))), &body, id)
}

/// An instance: its state, since when, what is said of it, and its values by their names.
fn item(item: &Item) -> String {
    let color = match item.status {
        Status::Firing | Status::Error => "#c62828",
        Status::Resolved => "#2e7d32",
        Status::Test => "#1565c0",
    };
    let key = item.key_text();
    let since = match item.status {
        Status::Resolved => format!("{} – {}", time(item.since), time(item.at)),
        Status::Firing | Status::Error | Status::Test => format!("since {}", time(item.since)),
    };
    let mut html = format!(
        "<tr><td style=\"border-top:1px solid #e4e7eb;padding:10px 0\">\
         <div style=\"font-size:13px;color:#616e7c\"><b style=\"color:{color}\">{}</b> {}</div>",
        item.status.word(),
        escaped(&since),
    );
    if !key.is_empty() {
        html += &format!("<div style=\"font-size:15px;font-weight:600;word-break:break-all\">{}</div>", escaped(&key));
    }
    for said in item.annotations.iter().map(|(_, text)| text).chain(&item.reason).filter(|text| !text.is_empty()) {
        html += &format!("<div style=\"font-size:14px;line-height:1.5;word-break:break-word\">{}</div>", escaped(said));
    }
    let values: Vec<_> = item.row.iter().filter(|(name, _)| item.key.iter().all(|(key, _)| key != *name)).collect();
    if !values.is_empty() {
        html +=
            "<table role=\"presentation\" cellpadding=\"0\" cellspacing=\"0\" style=\"margin-top:6px;font-size:13px\">";
        for (name, value) in values {
            html += &format!(
                "<tr><td style=\"color:#7b8794;padding:1px 14px 1px 0;white-space:nowrap;vertical-align:top\">{}</td>\
                 <td style=\"word-break:break-all\">{}</td></tr>",
                escaped(name),
                escaped(&plain(value)),
            );
        }
        html += "</table>";
    }
    html + "</td></tr>"
}
