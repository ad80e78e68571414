//! A small picture of a value over time, as PNG (W3C, Portable Network Graphics): mail programs show no other kind of drawing
//! for sure. Line and area, in grey how it went before, the last point marked if that is what it is about; the scale at the
//! left and the time below.
//!
//! It is drawn twice as large and averaged, so that slanting lines have no steps. A PNG is a signature and chunks: length,
//! name, bytes, CRC-32 of name and bytes. The rows of pixels go into IDAT, each with a byte 0 in front (no filter), packed by
//! zlib.

use std::io::Write;

use chrono::DateTime;
use chrono_tz::Tz;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::Series;
use crate::time::Micros;

/// Pixels of the picture: more than what a mail shows it at, as screens have more; and few enough to be read on a telephone.
const WIDTH: usize = 1040;
const HEIGHT: usize = 300;

/// It is drawn at so many times this size.
const FINE: usize = 2;

/// Room for what is written, in pixels; at the left as much as the scale needs.
const RIGHT: usize = 12;
const TOP: usize = 24;
const BOTTOM: usize = 44;

/// Size of a dot of a character, and of the thickness of lines, in pixels.
const DOT: usize = 3;
const THICK: usize = 4;

/// Lines of the scale, besides the one at zero.
const STEPS: usize = 4;

const WHITE: [u8; 3] = [255, 255, 255];
const GRID: [u8; 3] = [228, 231, 235];
const TEXT: [u8; 3] = [95, 105, 115];
const AREA: [u8; 3] = [226, 236, 249];
const LINE: [u8; 3] = [30, 100, 190];
const BEFORE: [u8; 3] = [176, 184, 193];
const MARK: [u8; 3] = [198, 40, 40];

/// Characters of 5 by 7 dots, a row a number.
const FONT: &[(char, [u8; 7])] = &[
    ('0', [0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e]),
    ('1', [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e]),
    ('2', [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f]),
    ('3', [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e]),
    ('4', [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02]),
    ('5', [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e]),
    ('6', [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e]),
    ('7', [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08]),
    ('8', [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e]),
    ('9', [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c]),
    ('.', [0, 0, 0, 0, 0, 0x0c, 0x0c]),
    (':', [0, 0x0c, 0x0c, 0, 0x0c, 0x0c, 0]),
    ('-', [0, 0, 0, 0x1f, 0, 0, 0]),
    ('k', [0x10, 0x10, 0x12, 0x14, 0x18, 0x14, 0x12]),
    ('M', [0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11]),
    ('G', [0x0e, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0f]),
];

/// What is drawn.
pub struct Chart<'a> {
    /// Time and value, oldest first.
    pub points: &'a [(Micros, f64)],
    /// The same of the period before, at the times of this one.
    pub before: &'a [(Micros, f64)],
    /// Time that is shown, also where there are no points: silence has to be seen.
    pub range: Option<(Micros, Micros)>,
    /// The last point is what it is about.
    pub marks_last: bool,
    pub zone: Tz,
}

struct Canvas(Vec<u8>);

impl Canvas {
    fn dot(&mut self, x: usize, y: usize, color: [u8; 3]) {
        if x < WIDTH * FINE && y < HEIGHT * FINE {
            let at = (y * WIDTH * FINE + x) * 3;
            self.0[at..at + 3].copy_from_slice(&color);
        }
    }

    fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, color: [u8; 3]) {
        for y in y..y + height {
            (x..x + width).for_each(|x| self.dot(x, y, color));
        }
    }

    /// At a place in pixels of the picture.
    fn write(&mut self, text: &str, x: usize, y: usize) {
        let dot = DOT * FINE;
        for (n, c) in text.chars().enumerate() {
            let rows = FONT.iter().find(|(known, _)| *known == c).map_or([0; 7], |(_, rows)| *rows);
            for (row, bits) in rows.iter().enumerate() {
                for column in (0..5).filter(|column| (bits >> (4 - column)) & 1 == 1) {
                    let middle = |at: usize, dots: usize| ((at * FINE + dots * dot) + dot / 2) as f64;
                    // Round, and a little larger than its place: dots side by side become strokes.
                    self.disc(middle(x, n * 6 + column), middle(y, row), dot as f64 * 0.66, TEXT);
                }
            }
        }
    }

    /// A line through points, thick in whatever direction it goes; with `area` what is below it.
    fn line(&mut self, points: &[(f64, f64)], color: [u8; 3], area: Option<([u8; 3], usize)>) {
        let thick = (THICK * FINE) as f64 / 2.0;
        if let Some((color, bottom)) = area {
            for pair in points.windows(2) {
                let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
                for x in x0 as usize..=x1 as usize {
                    let part = if x1 > x0 { ((x as f64 - x0) / (x1 - x0)).clamp(0.0, 1.0) } else { 1.0 };
                    let y = (y0 + (y1 - y0) * part) as usize;
                    self.fill(x, y, 1, bottom.saturating_sub(y), color);
                }
            }
        }
        for pair in points.windows(2) {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            let steps = (x1 - x0).abs().max((y1 - y0).abs()).ceil().max(1.0);
            for step in 0..=steps as usize {
                let part = step as f64 / steps;
                self.disc(x0 + (x1 - x0) * part, y0 + (y1 - y0) * part, thick, color);
            }
        }
    }

    fn disc(&mut self, x: f64, y: f64, radius: f64, color: [u8; 3]) {
        let reach = radius.ceil() as i64;
        for dy in -reach..=reach {
            for dx in -reach..=reach {
                let (px, py) = (x as i64 + dx, y as i64 + dy);
                let inside = (dx * dx + dy * dy) as f64 <= radius * radius;
                if let (true, Ok(px), Ok(py)) = (inside, usize::try_from(px), usize::try_from(py)) {
                    self.dot(px, py, color);
                }
            }
        }
    }

    /// The pixels of the picture.
    fn averaged(&self) -> Vec<u8> {
        let mut pixels = Vec::with_capacity(WIDTH * HEIGHT * 3);
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                for color in 0..3 {
                    let at = |dx: usize, dy: usize| ((y * FINE + dy) * WIDTH * FINE + x * FINE + dx) * 3 + color;
                    let all = (0..FINE * FINE).map(|n| u32::from(self.0[at(n % FINE, n / FINE)]));
                    pixels.push((all.sum::<u32>() / (FINE * FINE) as u32) as u8);
                }
            }
        }
        pixels
    }
}

/// The width of a text in pixels.
fn width(text: &str) -> usize {
    (text.chars().count() * 6 * DOT).saturating_sub(DOT)
}

/// A number in a few characters: `1234567` is `1.2M`.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        v if v == v.trunc() && v < 1e6 => 0,
        v if v >= 100.0 => 0,
        v if v >= 1.0 => 1,
        _ => 3,
    };
    format!("{value:.digits$}{unit}").chars().take(7).collect()
}

/// A round number, not less than this one, that parts well by [`STEPS`].
fn round_up(value: f64) -> f64 {
    let unit = 10f64.powf(value.log10().floor());
    let round = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0].into_iter().map(|n| n * unit).find(|n| *n >= value);
    round.filter(|n| n.is_finite()).unwrap_or(value)
}

/// The picture of a value before an event; `None` with less than two points.
pub fn png(series: &Series) -> Option<Vec<u8>> {
    draw(&Chart { points: &series.points, before: &[], range: None, marks_last: true, zone: Tz::UTC })
}

/// The picture; `None` with less than two points.
pub fn draw(chart: &Chart<'_>) -> Option<Vec<u8>> {
    let finite = |points: &[(Micros, f64)]| -> Vec<(Micros, f64)> {
        points.iter().copied().filter(|(_, value)| value.is_finite()).collect()
    };
    let (points, before) = (finite(chart.points), finite(chart.before));
    let (first, last) = (points.first()?.0, points.last()?.0);
    let (first, last) = chart.range.map_or((first, last), |(start, end)| (first.min(start), last.max(end)));
    if points.len() < 2 || last <= first {
        return None;
    }
    let before: Vec<_> = before.into_iter().filter(|(time, _)| (first..=last).contains(time)).collect();
    let values = || points.iter().chain(&before).map(|(_, value)| *value);
    let (most, least) = (values().fold(0.0, f64::max), values().fold(0.0, f64::min));
    let most = if most > 0.0 { round_up(most) } else { most };
    // Halves, as their difference may be more than there is a number for.
    let height = if most > least { most / 2.0 - least / 2.0 } else { 0.5 };
    let scale: Vec<String> = (0..=STEPS).map(|step| short(most - height * 2.0 * step as f64 / STEPS as f64)).collect();
    let left = scale.iter().map(|text| width(text)).max().unwrap_or(0) + 14;
    let (inner_width, inner_height) = ((WIDTH - left - RIGHT) * FINE, (HEIGHT - TOP - BOTTOM) * FINE);
    let x_of = |time: Micros| {
        let part = (time as f64 - first as f64) / (last as f64 - first as f64);
        (left * FINE) as f64 + part * (inner_width - 1) as f64
    };
    let y_of = |value: f64| {
        (TOP * FINE) as f64 + ((most / 2.0 - value / 2.0) / height).clamp(0.0, 1.0) * (inner_height - 1) as f64
    };
    let mut canvas = Canvas(WHITE.repeat(WIDTH * HEIGHT * FINE * FINE));
    for (step, text) in scale.iter().enumerate() {
        let y = TOP * FINE + step * (inner_height - 1) / STEPS;
        canvas.fill(left * FINE, y, inner_width, FINE, GRID);
        if step.is_multiple_of(2) {
            canvas.write(text, left - 14 - width(text), (y / FINE).saturating_sub(7 * DOT / 2));
        }
    }
    let placed = |points: &[(Micros, f64)]| -> Vec<(f64, f64)> {
        points.iter().map(|(time, value)| (x_of(*time), y_of(*value))).collect()
    };
    let drawn = placed(&points);
    canvas.line(&drawn, LINE, Some((AREA, TOP * FINE + inner_height)));
    canvas.line(&placed(&before), BEFORE, None);
    canvas.line(&drawn, LINE, None);
    if let (true, Some((x, y))) = (chart.marks_last, drawn.last()) {
        canvas.disc(*x, *y, (9 * FINE) as f64, MARK);
    }
    // A day and more needs the date.
    let form = match last.saturating_sub(first) {
        span if span >= 172_800_000_000 => "%m-%d %H:%M",
        span if span >= 600_000_000 => "%H:%M",
        _ => "%H:%M:%S",
    };
    let clock = |time: Micros| {
        DateTime::from_timestamp_micros(time).unwrap_or_default().with_timezone(&chart.zone).format(form).to_string()
    };
    let middle = first / 2 + last / 2;
    for (time, part) in [(first, 0), (middle, 1), (last, 2)] {
        let text = clock(time);
        let x = left + (WIDTH - left - RIGHT) * part / 2;
        canvas.write(&text, x.saturating_sub(width(&text) * part / 2), HEIGHT - BOTTOM + 18);
    }
    encode(&canvas.averaged())
}

fn encode(pixels: &[u8]) -> Option<Vec<u8>> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
    for row in pixels.chunks(WIDTH * 3) {
        packed.write_all(&[0]).ok()?;
        packed.write_all(row).ok()?;
    }
    let mut header = Vec::new();
    header.extend((WIDTH as u32).to_be_bytes());
    header.extend((HEIGHT as u32).to_be_bytes());
    // 8 bits each of red, green and blue; the usual packing, no filter, not interlaced.
    header.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, bytes) in [(b"IHDR", header), (b"IDAT", packed.finish().ok()?), (b"IEND", Vec::new())] {
        png.extend((bytes.len() as u32).to_be_bytes());
        let from = png.len();
        png.extend(name);
        png.extend(bytes);
        let checksum = crc32fast::hash(&png[from..]);
        png.extend(checksum.to_be_bytes());
    }
    Some(png)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_picture_has_all_its_pixels() {
        let points = (0..60).map(|n| (n * 60_000_000, f64::from(n as u32 % 7) * 1000.0)).collect();
        let png = png(&Series { name: "n".into(), points }).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.ends_with(b"IEND\xae\x42\x60\x82"), "the checksum of IEND is known");
        let at = png.windows(4).position(|four| four == b"IDAT").unwrap();
        let mut pixels = Vec::new();
        flate2::read::ZlibDecoder::new(&png[at + 4..]).read_to_end(&mut pixels).unwrap();
        assert_eq!(pixels.len(), HEIGHT * (WIDTH * 3 + 1));
        let has = |color: [u8; 3]| pixels.windows(3).any(|three| three == color);
        assert!(has(LINE) && has(MARK) && !has(BEFORE));
    }

    #[test]
    fn what_was_before_is_drawn_beside_it() {
        let points: Vec<_> = (0..10).map(|n| (n * 60_000_000, n as f64)).collect();
        let before: Vec<_> = (0..20).map(|n| (n * 60_000_000, 9.0 - n as f64 / 2.0)).collect();
        let of = |before: &[(Micros, f64)]| {
            draw(&Chart { points: &points, before, range: None, marks_last: false, zone: Tz::UTC }).unwrap()
        };
        assert_ne!(of(&before), of(&[]));
        assert_eq!(of(&before), of(&before[..10]), "what is behind the end is not shown");
    }

    #[test]
    fn odd_values_draw_something_or_nothing() {
        let of = |points: &[(i64, f64)]| png(&Series { name: String::new(), points: points.to_vec() }).is_some();
        assert!(!of(&[]) && !of(&[(0, 1.0)]) && !of(&[(5, 1.0), (5, 2.0)]) && !of(&[(0, f64::NAN), (1, 2.0)]));
        assert!(
            of(&[(0, 0.0), (1, 0.0)])
                && of(&[(0, -1e300), (1, 1e300)])
                && of(&[(i64::MIN / 4, 1.0), (i64::MAX / 4, 2.0)])
        );
        let short_ones: Vec<String> = [0.0, 7.0, 0.25, 12.34, 1_234_567.0, -20_000.0].map(short).to_vec();
        let round: Vec<f64> = [7.0, 12.5, 100.0, 0.031].map(round_up).to_vec();
        assert_eq!(round, [8.0, 16.0, 100.0, 0.032]);
        assert_eq!(short_ones, ["0", "7", "0.250", "12.3", "1.2M", "-20k"]);
    }
}
