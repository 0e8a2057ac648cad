//! Pictures of who held a coprocessor when.
//!
//! One row for each domain on a common time axis: alternation, unfairness and gaps are seen at once, which no
//! table shows. Once as characters for the terminal, once as SVG, which any browser opens; both
//! are simple enough that a plotting library would be more code than it saves.

use std::fmt::Write as _;

use crate::report::Slice;

/// Colours of the rows (the first ones of Okabe and Ito's palette, which colour-blind readers can tell
/// apart).
const COLOURS: [&str; 6] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9",
];

/// The slices' domains in the order of their names, and the time that they span in ns.
fn extent(slices: &[Slice]) -> Option<(Vec<&str>, u64, u64)> {
    let from = slices.iter().map(|slice| slice.from_ns).min()?;
    let to = slices.iter().map(|slice| slice.to_ns).max()?;
    let mut domains: Vec<&str> = slices.iter().map(|slice| slice.domain.as_str()).collect();
    domains.sort_unstable();
    domains.dedup();
    Some((domains, from, to.max(from + 1)))
}

/// The picture as text, `width` columns of time.
pub fn text(slices: &[Slice], width: usize) -> String {
    let Some((domains, from, to)) = extent(slices) else {
        return "  (no slices)\n".to_owned();
    };
    let width = width.max(10);
    let column = (to - from) as f64 / width as f64;
    let mut picture = String::new();
    for domain in &domains {
        let mut held = vec![0.0_f64; width];
        for slice in slices.iter().filter(|slice| slice.domain == *domain) {
            let (a, b) = (
                (slice.from_ns - from) as f64 / column,
                (slice.to_ns - from) as f64 / column,
            );
            for (index, cell) in held.iter_mut().enumerate() {
                let left = index as f64;
                *cell += (b.min(left + 1.0) - a.max(left)).max(0.0);
            }
        }
        let row: String = held.iter().map(|&part| shade(part)).collect();
        let _ = writeln!(picture, "  {domain:>8} │{row}│");
    }
    let end = format!("{:.1} s", (to - from) as f64 / 1e9);
    let _ = writeln!(picture, "  {:>8} 0{end:>width$}", "");
    picture
}

fn shade(part: f64) -> char {
    match part {
        p if p < 0.02 => ' ',
        p if p < 0.25 => '░',
        p if p < 0.50 => '▒',
        p if p < 0.75 => '▓',
        _ => '█',
    }
}

/// The picture as an SVG file.
pub fn svg(title: &str, slices: &[Slice]) -> String {
    const LEFT: f64 = 90.0;
    const WIDTH: f64 = 1000.0;
    const TOP: f64 = 60.0;
    const ROW: f64 = 44.0;
    let (domains, from, to) = extent(slices).unwrap_or((Vec::new(), 0, 1));
    let span = (to - from) as f64;
    let bottom = TOP + ROW * domains.len() as f64;
    let x = |ns: u64| LEFT + (ns - from) as f64 / span * WIDTH;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"system-ui, sans-serif\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"32\" font-size=\"18\" font-weight=\"600\" fill=\"#222222\">{}</text>",
        LEFT + WIDTH + 30.0,
        bottom + 60.0,
        escaped(title)
    );
    let step = tick_step(span / 1e9);
    let ticks = (span / 1e9 / step).floor() as u32;
    for tick in 0..=ticks {
        let seconds = f64::from(tick) * step;
        let at = LEFT + seconds * 1e9 / span * WIDTH;
        let _ = writeln!(
            out,
            "<line x1=\"{at:.2}\" y1=\"{TOP}\" x2=\"{at:.2}\" y2=\"{:.0}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{at:.2}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#666666\">{}</text>",
            bottom + 6.0,
            bottom + 24.0,
            short(seconds)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#666666\">time in s</text>",
        LEFT + WIDTH / 2.0,
        bottom + 46.0
    );
    for (row, domain) in domains.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let colour = COLOURS[row % COLOURS.len()];
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\" fill=\"#222222\">{}</text>",
            LEFT - 12.0,
            y + ROW / 2.0 + 5.0,
            escaped(domain)
        );
        for slice in slices.iter().filter(|slice| slice.domain == *domain) {
            let left = x(slice.from_ns);
            let wide = (x(slice.to_ns) - left).max(0.3);
            let _ = writeln!(
                out,
                "<rect x=\"{left:.2}\" y=\"{:.0}\" width=\"{wide:.2}\" height=\"{:.0}\" rx=\"2\" fill=\"{colour}\">\
                 <title>{} {}: {:.3} s to {:.3} s ({:.1} ms)</title></rect>",
                y + 7.0,
                ROW - 14.0,
                escaped(domain),
                escaped(&slice.vcoproc),
                (slice.from_ns - from) as f64 / 1e9,
                (slice.to_ns - from) as f64 / 1e9,
                (slice.to_ns - slice.from_ns) as f64 / 1e6
            );
        }
    }
    let _ = writeln!(
        out,
        "<line x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{:.0}\" y2=\"{bottom}\" stroke=\"#444444\"/>\n</svg>",
        LEFT + WIDTH
    );
    out
}

/// A round step that gives about ten ticks over so many seconds.
fn tick_step(seconds: f64) -> f64 {
    let rough = (seconds / 10.0).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&step| step >= rough * 0.999)
        .unwrap_or(power)
}

fn short(seconds: f64) -> String {
    let text = format!("{seconds:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(domain: &str, from_ms: u64, to_ms: u64) -> Slice {
        Slice {
            coproc: 0,
            vcoproc: "v0".to_owned(),
            domain: domain.to_owned(),
            from_ns: 5_000_000_000 + from_ms * 1_000_000,
            to_ns: 5_000_000_000 + to_ms * 1_000_000,
        }
    }

    #[test]
    fn rows_show_who_held_it() {
        let slices = [
            slice("d1", 0, 500),
            slice("d2", 500, 1000),
            slice("d1", 1000, 2000),
        ];
        let picture = text(&slices, 20);
        let rows: Vec<_> = picture.lines().collect();
        assert_eq!(rows[0], "        d1 │█████     ██████████│");
        assert_eq!(rows[1], "        d2 │     █████          │");
        assert!(rows[2].ends_with("2.0 s"), "{picture}");
    }

    #[test]
    fn parts_of_a_column_are_shaded_and_nothing_is_fine() {
        let picture = text(&[slice("d1", 0, 40), slice("d2", 40, 1000)], 10);
        assert!(picture.contains("│▒         │"), "{picture}");
        assert!(text(&[], 10).contains("no slices"));
        assert!(svg("t", &[]).ends_with("</svg>\n"));
    }

    #[test]
    fn the_svg_has_a_bar_for_each_slice_and_escapes_names() {
        let picture = svg("a <b> & c", &[slice("d1", 0, 500), slice("d2", 500, 1000)]);
        assert_eq!(picture.matches("<title>").count(), 2);
        assert!(picture.contains("a &lt;b&gt; &amp; c"));
        assert!(picture.contains("width=\"500.00\""), "{picture}");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(tick_step(10.0), 1.0);
        assert_eq!(tick_step(18.0), 2.0);
        assert_eq!(tick_step(60.0), 10.0);
        assert_eq!(short(0.5), "0.5");
        assert_eq!(short(20.0), "20");
    }
}
