//! Pictures for a report.

use charts_rs::{Box, HorizontalBarChart, Position, Series, TextConfig};

/// Height of a bar, of the room between two groups, and of what stands above and below the bars; pixels.
const BAR: f32 = 18.0;
const GAP: f32 = 16.0;
const ABOVE: f32 = 110.0;
const NOTE: f32 = 15.0;
const WIDTH: f32 = 900.0;

/// What a picture says beside its bars.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// What is shown.
    pub title: &'a str,
    /// The unit of the values, and how they were taken.
    pub unit: &'a str,
    /// Lines below the bars: the machine, and which versions were measured.
    pub notes: &'a [String],
}

/// Horizontal bars in groups, with their values: one group for each label, in it one bar for each series. An SVG document.
///
/// # Errors
/// What the drawing library says.
pub fn bars(words: Words<'_>, labels: &[String], series: &[(String, Vec<f64>)]) -> Result<String, String> {
    // The library draws the first group at the bottom.
    let bars = series.iter().map(|(name, values)| {
        let values: Vec<f32> = values.iter().rev().map(|v| *v as f32).collect();
        let mut bars: Series = (spaced(name).as_str(), values).into();
        bars.label_show = true;
        bars
    });
    let groups = labels.iter().rev().map(|label| spaced(label)).collect();
    let notes = NOTE * words.notes.len() as f32;
    let mut chart = HorizontalBarChart::new(bars.collect(), groups);
    chart.width = WIDTH;
    chart.height = ABOVE + labels.len() as f32 * (BAR * series.len() as f32 + GAP) + notes;
    chart.title.text = words.title.to_owned();
    chart.sub_title.text = words.unit.to_owned();
    chart.legend.margin = Some(Box { top: 52.0, ..Box::default() });
    chart.series_label_position = Some(Position::Right);
    chart.margin = Box { left: 12.0, top: 12.0, right: 48.0, bottom: 12.0 + notes };
    let below = chart.height - notes;
    chart.texts =
        words.notes.iter().enumerate().map(|(i, text)| note(text, below + NOTE * i as f32)).collect();
    chart.svg().map_err(|e| e.to_string())
}

/// With room behind it: the library measures text in a font that is narrower than what viewers put in its place.
fn spaced(text: &str) -> String {
    format!("{text}\u{a0}\u{a0}\u{a0}")
}

/// A line of text that starts at the left edge.
fn note(text: &str, top: f32) -> TextConfig {
    TextConfig { text: text.to_owned(), left: Some(12.0), top: Some(top), ..TextConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_all_that_it_is_given() {
        let series = [("full load".to_owned(), vec![3.0, 2.0]), ("no loss".to_owned(), vec![2.5, 1.0])];
        let notes = ["a machine".to_owned()];
        let words = Words { title: "Rates", unit: "Mpps", notes: &notes };
        let svg = bars(words, &["60".into(), "imix".into()], &series).unwrap();
        for word in ["<svg", "Rates", "Mpps", "full load", "no loss", "imix", "2.5", "a machine", "</svg>"] {
            assert!(svg.contains(word), "{word}");
        }
    }
}
