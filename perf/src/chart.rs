//! Pictures for a report.

use charts_rs::BarChart;

/// Bars in groups: one group for each label, in it one bar for each series. An SVG document.
///
/// # Errors
/// What the drawing library says.
pub fn bars(
    title: &str,
    unit: &str,
    labels: &[String],
    series: &[(String, Vec<f64>)],
) -> Result<String, String> {
    let bars = series.iter().map(|(name, values)| {
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        (name.as_str(), values).into()
    });
    let mut chart = BarChart::new(bars.collect(), labels.to_vec());
    (chart.width, chart.height) = (900.0, 420.0);
    chart.title.text = title.to_owned();
    chart.sub_title.text = unit.to_owned();
    chart.margin = 12.0.into();
    chart.svg().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_all_that_it_is_given() {
        let series = [("full load".to_owned(), vec![3.0, 2.0]), ("no loss".to_owned(), vec![2.5, 1.0])];
        let svg = bars("Rates", "Mpps", &["60".into(), "imix".into()], &series).unwrap();
        for word in ["<svg", "Rates", "Mpps", "full load", "no loss", "imix"] {
            assert!(svg.contains(word), "{word}");
        }
    }
}
