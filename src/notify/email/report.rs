//! The page of a report: figures side by side, charts, tables with bars, each number with its change.

use serde_json::Value;

use super::super::chart::{self, Chart};
use super::super::report::{Change, Figure, Kind, Report, Section, Shape, cut};
use super::html::{escaped, page, picture};

/// Rows that a table shows.
const MOST_ROWS: usize = 50;

/// Charts of one mail: each is some 20 kB.
const MOST_CHARTS: usize = 12;

/// Characters of a value in a table.
const WIDEST: usize = 160;

const GREY: &str = "#7b8794";

/// The page, and its pictures by their Content-IDs.
pub fn html(report: &Report, id: &str) -> (String, Vec<(String, Vec<u8>)>) {
    let (mut body, mut pictures) = (String::new(), Vec::new());
    if !report.remarks.is_empty() {
        let remarks: Vec<String> = report.remarks.iter().map(|remark| escaped(remark)).collect();
        body += &format!(
            "<div style=\"margin-top:12px;padding:8px 12px;background:#fff3e0;border-left:4px solid #ef6c00;font-size:13px;\
             line-height:1.5\">{}</div>",
            remarks.join("<br>")
        );
    }
    for section in &report.sections {
        if !section.title.is_empty() {
            body += &format!(
                "<h2 style=\"margin:20px 0 8px;font-size:16px;font-weight:600;line-height:1.3\">{}</h2>",
                escaped(&section.title)
            );
        }
        body += &match section.shape() {
            Shape::Failed => format!(
                "<div style=\"padding:8px 12px;background:#ffebee;border-left:4px solid #c62828;font-size:13px;line-height:1.5;\
                 word-break:break-word\"><b>This query failed.</b><br>{}</div>",
                escaped(section.error.as_deref().unwrap_or_default()).replace('\n', "<br>")
            ),
            Shape::Empty => format!("<div style=\"font-size:14px;color:{GREY}\">nothing</div>"),
            Shape::Figures => figures(section),
            Shape::Series => series(report, section, &mut pictures),
            Shape::Table => table(report, section),
        };
    }
    let color = match (report.has_failed(), report.late) {
        (true, _) => "#b3261e",
        (false, true) => "#c25700",
        (false, false) => "#1f4e8c",
    };
    let late = if report.late { " · late" } else { "" };
    let compared =
        if report.compares() { format!(" · compared with {}", report.period_before()) } else { String::new() };
    let line = format!("{}{late}{compared}", report.period());
    (page(color, (&report.name, &line), &body, id), pictures)
}

fn figures(section: &Section) -> String {
    let one = |figure: Figure<'_>| {
        let change = match (figure.change, &figure.before) {
            (Some(Change::Same), _) => "unchanged".to_string(),
            (Some(change @ Change::FromNothing), _) => change.to_string(),
            (Some(change @ Change::Percent(_)), Some(before)) => {
                format!("<b>{change}</b> <span style=\"color:{GREY}\">from {}</span>", escaped(before))
            }
            (Some(Change::Percent(_)), None) | (None, _) => "&nbsp;".to_string(),
        };
        format!(
            "<div style=\"display:inline-block;vertical-align:top;min-width:104px;margin:0 6px 6px 0;padding:9px 11px;\
             background:#f4f6f9;border-radius:6px\"><div style=\"font-size:12px;color:#52606d\">{}</div>\
             <div style=\"font-size:24px;font-weight:600;line-height:1.35\">{}</div>\
             <div style=\"font-size:12px;color:#3e4c59;white-space:nowrap\">{change}</div></div>",
            escaped(figure.name),
            escaped(&figure.value),
        )
    };
    section.figures().into_iter().map(one).collect()
}

/// A chart for each column of numbers; as a table where none can be drawn.
fn series(report: &Report, section: &Section, pictures: &mut Vec<(String, Vec<u8>)>) -> String {
    let mut html = String::new();
    for (at, column) in section.columns.iter().enumerate().skip(1) {
        let (points, shift) = (section.points(at, false), report.start - report.before);
        let before: Vec<_> =
            section.points(at, true).into_iter().map(|(time, value)| (time.saturating_add(shift), value)).collect();
        // What asks for no period may show any time.
        let range = section.previous.as_ref().map(|_| (report.start, report.end));
        let drawn = Chart { points: &points, before: &before, range, marks_last: false, zone: report.zone() };
        let png = if pictures.len() < MOST_CHARTS { chart::draw(&drawn) } else { None };
        let Some(png) = png else { return html + &table(report, section) };
        let legend = match before.is_empty() {
            true => String::new(),
            false => {
                " <span style=\"color:#1e64be\">━</span> now <span style=\"color:#b0b8c1\">━</span> before".to_string()
            }
        };
        html += &format!(
            "<div style=\"margin:6px 0 2px;font-size:12px;color:{GREY}\"><b style=\"color:#52606d\">{}</b>{legend}</div>",
            escaped(&column.name)
        );
        let id = format!("chart-{}", pictures.len() + 1);
        html += &picture(&id, &section.text(&report.zone(), 0));
        pictures.push((id, png));
    }
    html
}

fn table(report: &Report, section: &Section) -> String {
    let zone = report.zone();
    let aligned = |at: usize| if section.is_measure(at) { "right" } else { "left" };
    let mut html = String::from(
        "<table width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" style=\"border-collapse:collapse;font-size:13px\"><tr>",
    );
    for (at, column) in section.columns.iter().enumerate() {
        html += &format!(
            "<th align=\"{side}\" style=\"padding:4px 0 4px {left}px;text-align:{side};font-weight:600;font-size:12px;color:#52606d;\
             border-bottom:2px solid #cbd2d9\">{}</th>",
            escaped(&column.name),
            side = aligned(at),
            left = if at == 0 { 0 } else { 12 },
        );
    }
    html += "</tr>";
    // What the bars are of: the first numbers that are compared.
    let measure = (0..section.columns.len()).find(|at| section.is_measure(*at));
    let value = |row: &Vec<Value>| measure.and_then(|at| row.get(at)?.as_f64());
    let most = section.rows.iter().filter_map(value).fold(0.0, f64::max);
    for (row, before) in section.rows.iter().zip(section.rows_before()).take(MOST_ROWS) {
        html += "<tr>";
        for (at, cell) in row.iter().enumerate().take(section.columns.len()) {
            let text = escaped(&cut(&section.cell(cell, at, &zone), WIDEST));
            let left = if at == 0 { 0 } else { 12 };
            let style = match section.columns[at].kind {
                Kind::Number if section.is_measure(at) => "text-align:right;white-space:nowrap",
                Kind::Number | Kind::Time => "white-space:nowrap",
                Kind::Text => "word-break:break-word",
            };
            let more = match (section.is_measure(at), &section.previous) {
                (true, Some(_)) => {
                    let change = section.change(cell, before, at);
                    format!("<div style=\"font-size:11px;color:{GREY}\">{}</div>", escaped(&change))
                }
                _ if at == 0 && most > 0.0 => {
                    let part = value(row).map_or(0.0, |value| (value / most * 100.0).clamp(0.0, 100.0));
                    format!("<div style=\"margin-top:3px;height:3px;width:{part:.0}%;background:#9fc0ea\"></div>")
                }
                _ => String::new(),
            };
            html += &format!(
                "<td align=\"{}\" style=\"padding:5px 0 5px {left}px;border-bottom:1px solid #e4e7eb;vertical-align:top;{style}\">{text}{more}</td>",
                aligned(at)
            );
        }
        html += "</tr>";
    }
    html += "</table>";
    let rest = section.omitted + section.rows.len().saturating_sub(MOST_ROWS) as u64;
    if rest > 0 {
        html += &format!("<p style=\"margin:6px 0 0;font-size:13px;color:{GREY}\">and {rest} more</p>");
    }
    html
}

#[cfg(test)]
mod tests {
    use super::super::super::report::tests::report;
    use super::*;

    #[test]
    fn a_page_has_figures_a_chart_a_table_and_what_failed() {
        let mut report = report();
        let (html, pictures) = html(&report, "00ff");
        assert_eq!(pictures.len(), 1);
        for part in [
            "12,345",
            "▲ 23 %",
            "from 10,000",
            "cid:chart-1",
            "Clients &lt;top&gt;",
            "text-align:right",
            "▼ 25 %",
            "new",
            "division by zero",
            "2026-01-01 01:00–02:00 CET",
            "00ff",
        ] {
            assert!(html.contains(part), "no {part} in: {html}");
        }
        assert!(!html.contains("<top>"), "{html}");
        // More rows than anybody reads.
        let row = report.sections[2].rows[0].clone();
        report.sections[2].rows = vec![row; MOST_ROWS + 10];
        report.sections[2].omitted = 5;
        assert!(super::html(&report, "").0.contains("and 15 more"));
    }

    #[test]
    fn there_are_only_so_many_charts() {
        let mut report = report();
        let one = report.sections[1].clone();
        report.sections = vec![one; MOST_CHARTS + 1];
        let (html, pictures) = html(&report, "");
        assert_eq!(pictures.len(), MOST_CHARTS);
        assert!(html.contains("<th"), "the rest is a table");
    }
}
