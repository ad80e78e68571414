//! A small picture of a value over time, as PNG (W3C, Portable Network Graphics): mail programs show no other kind of drawing
//! for sure. Line and area, the last point marked, largest and smallest value and both ends of the time written at the edges.
//!
//! A PNG is a signature and chunks: length, name, bytes, CRC-32 of name and bytes. The rows of pixels go into IDAT, each with
//! a byte 0 in front (no filter), packed by zlib.

use std::io::Write;

use chrono::DateTime;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::Series;

/// Twice what a mail shows it at: screens have that many pixels.
const WIDTH: usize = 1280;
const HEIGHT: usize = 320;

/// Room for what is written, in pixels.
const LEFT: usize = 150;
const RIGHT: usize = 24;
const TOP: usize = 24;
const BOTTOM: usize = 52;

/// Size of a dot of a character.
const DOT: usize = 4;

const WHITE: [u8; 3] = [255, 255, 255];
const GRID: [u8; 3] = [225, 225, 225];
const TEXT: [u8; 3] = [90, 90, 90];
const AREA: [u8; 3] = [227, 236, 248];
const LINE: [u8; 3] = [30, 100, 190];
const MARK: [u8; 3] = [198, 40, 40];

/// Characters of 3 by 5 dots, a row a number.
const FONT: &[(char, [u8; 5])] = &[
    ('0', [7, 5, 5, 5, 7]),
    ('1', [2, 6, 2, 2, 7]),
    ('2', [7, 1, 7, 4, 7]),
    ('3', [7, 1, 7, 1, 7]),
    ('4', [5, 5, 7, 1, 1]),
    ('5', [7, 4, 7, 1, 7]),
    ('6', [7, 4, 7, 5, 7]),
    ('7', [7, 1, 2, 2, 2]),
    ('8', [7, 5, 7, 5, 7]),
    ('9', [7, 5, 7, 1, 7]),
    ('.', [0, 0, 0, 0, 2]),
    (':', [0, 2, 0, 2, 0]),
    ('-', [0, 0, 7, 0, 0]),
    ('k', [4, 5, 6, 5, 5]),
    ('M', [5, 7, 7, 5, 5]),
    ('G', [7, 4, 5, 5, 7]),
];

struct Canvas(Vec<u8>);

impl Canvas {
    fn dot(&mut self, x: usize, y: usize, color: [u8; 3]) {
        if x < WIDTH && y < HEIGHT {
            let at = (y * WIDTH + x) * 3;
            self.0[at..at + 3].copy_from_slice(&color);
        }
    }

    fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, color: [u8; 3]) {
        for y in y..y + height {
            (x..x + width).for_each(|x| self.dot(x, y, color));
        }
    }

    fn write(&mut self, text: &str, x: usize, y: usize) {
        for (n, c) in text.chars().enumerate() {
            let rows = FONT.iter().find(|(known, _)| *known == c).map_or([0; 5], |(_, rows)| *rows);
            for (row, bits) in rows.iter().enumerate() {
                for column in (0..3).filter(|column| (bits >> (2 - column)) & 1 == 1) {
                    self.fill(x + n * 4 * DOT + column * DOT, y + row * DOT, DOT, DOT, TEXT);
                }
            }
        }
    }
}

/// The width of a text in pixels.
fn width(text: &str) -> usize {
    (text.chars().count() * 4 * DOT).saturating_sub(DOT)
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

/// The picture; `None` with less than two points.
pub fn png(series: &Series) -> Option<Vec<u8>> {
    let points: Vec<(i64, f64)> = series.points.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    let (first, last) = (points.first()?.0, points.last()?.0);
    if points.len() < 2 || last <= first {
        return None;
    }
    let most = points.iter().map(|(_, value)| *value).fold(f64::MIN, f64::max);
    let least = points.iter().map(|(_, value)| *value).fold(f64::MAX, f64::min).min(0.0);
    let height = if most > least { most - least } else { 1.0 };
    let (inner_width, inner_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let x_of = |time: i64| LEFT + ((time - first) as f64 / (last - first) as f64 * (inner_width - 1) as f64) as usize;
    let y_of = |value: f64| TOP + ((most - value) / height * (inner_height - 1) as f64) as usize;
    let mut canvas = Canvas(WHITE.repeat(WIDTH * HEIGHT));
    for part in 0..=4 {
        canvas.fill(LEFT, TOP + part * (inner_height - 1) / 4, inner_width, 2, GRID);
    }
    for pair in points.windows(2) {
        let ((from, low), (to, high)) = (pair[0], pair[1]);
        let (from, to) = (x_of(from), x_of(to));
        let mut before = y_of(low);
        for x in from..=to {
            let part = if to > from { (x - from) as f64 / (to - from) as f64 } else { 1.0 };
            let y = y_of(low + (high - low) * part);
            canvas.fill(x, y, 1, TOP + inner_height - y, AREA);
            canvas.fill(x, y.min(before).saturating_sub(2), 2, y.abs_diff(before) + 5, LINE);
            before = y;
        }
    }
    let (time, value) = *points.last()?;
    canvas.fill(x_of(time).saturating_sub(8), y_of(value).saturating_sub(8), 17, 17, MARK);
    for (value, y) in [(most, TOP), (least, TOP + inner_height - 5 * DOT)] {
        let text = short(value);
        canvas.write(&text, LEFT.saturating_sub(width(&text) + 16), y);
    }
    let clock = |time: i64| DateTime::from_timestamp_micros(time).unwrap_or_default().format("%H:%M:%S").to_string();
    canvas.write(&clock(first), LEFT, HEIGHT - BOTTOM + 20);
    let end = clock(last);
    canvas.write(&end, WIDTH - RIGHT - width(&end), HEIGHT - BOTTOM + 20);
    encode(&canvas.0)
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
        assert!(pixels.windows(3).any(|three| three == LINE) && pixels.windows(3).any(|three| three == MARK));
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
        assert_eq!(short_ones, ["0", "7", "0.250", "12.3", "1.2M", "-20k"]);
    }
}
