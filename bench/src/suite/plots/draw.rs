//! How a plot becomes SVG.
//!
//! Values on a logarithmic scale are drawn at their logarithm, so that all panels are of one type.

use std::io;
use std::ops::Range;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    Cartesian2d, Circle, DrawingArea, DrawingAreaErrorKind, IntoDrawingArea, IntoFont, PathElement,
    RGBColor, Rectangle, SVGBackend, ShapeStyle, Text, TextStyle, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle};

use super::{Contender, Group, Marks, Panel, Plot, Spread};

const WIDTH: i32 = 960;
const HEIGHT: i32 = 430;
const MARGIN: i32 = 20;
const LEGEND_TOP: i32 = 66;
const LEGEND_LINE: i32 = 21;

const TITLE_LINE: i32 = 24;
/// Few bars are not blown up to fill their panel.
const WIDEST_BAR: f64 = 52.0;

const INK: RGBColor = RGBColor(33, 37, 41);
const PALE_INK: RGBColor = RGBColor(92, 99, 106);
const GRID: RGBColor = RGBColor(222, 226, 230);
const FINE_GRID: RGBColor = RGBColor(241, 243, 245);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Done<T = ()> = Result<T, DrawingAreaErrorKind<io::Error>>;

/// Warm colours are ringgate's.
fn colour(contender: Contender) -> RGBColor {
    match contender {
        Contender::Ringgate => RGBColor(232, 89, 12),
        Contender::RinggateL4 => RGBColor(166, 94, 46),
        Contender::RinggateTwo => RGBColor(250, 163, 84),
        Contender::RinggateUser => RGBColor(253, 208, 145),
        Contender::RinggateFour => RGBColor(201, 42, 42),
        Contender::Nginx => RGBColor(44, 111, 187),
        Contender::NginxHuge => RGBColor(146, 190, 233),
        Contender::HaproxySplice => RGBColor(143, 201, 173),
        Contender::NginxV2ray => RGBColor(112, 72, 120),
        Contender::V2ray => RGBColor(190, 90, 160),
        Contender::Haproxy => RGBColor(55, 148, 110),
        Contender::Envoy => RGBColor(132, 94, 178),
        Contender::Caddy => RGBColor(34, 160, 190),
        Contender::Floor => RGBColor(134, 142, 150),
        Contender::Direct => RGBColor(206, 212, 218),
    }
}

pub(super) fn svg(plot: &Plot) -> Done<String> {
    let mut svg = String::new();
    {
        let size = (WIDTH.unsigned_abs(), HEIGHT.unsigned_abs());
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        root.draw(&Text::new(plot.title, (MARGIN, 14), font(18, &INK, FontStyle::Bold)))?;
        let note = Text::new(&*plot.note, (MARGIN, 42), font(13, &PALE_INK, FontStyle::Normal));
        root.draw(&note)?;
        let top = draw_legend(&root, plot)?;
        let (_, panels) = root.split_vertically(top);
        let panels = panels.split_evenly((1, plot.panels.len()));
        for (place, (area, panel)) in panels.iter().zip(&plot.panels).enumerate() {
            draw_panel(&root, area, plot, panel, place == 0)?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// In pixels: the crate divides what it is given by 1.24.
fn font(pixels: i32, colour: &RGBColor, style: FontStyle) -> TextStyle<'_> {
    ("sans-serif", f64::from(pixels) * 1.24).into_font().style(style).color(colour)
}

/// Everyone who is in some panel, over as many lines as it takes; returns where it ends.
fn draw_legend(root: &Area<'_>, plot: &Plot) -> Done<i32> {
    let (mut x, mut y) = (MARGIN, LEGEND_TOP);
    for contender in contenders(&plot.panels) {
        let name = contender.to_string();
        // The typeface is the reader's: this is enough for a wide one.
        let width = 20 + 6 * name.len() as i32 + 26;
        if x + width > WIDTH {
            (x, y) = (MARGIN, y + LEGEND_LINE);
        }
        root.draw(&Rectangle::new([(x, y), (x + 14, y + 14)], colour(contender).filled()))?;
        let style =
            if contender == Contender::Ringgate { FontStyle::Bold } else { FontStyle::Normal };
        let at_middle = Pos::new(HPos::Left, VPos::Center);
        let style = font(13, &INK, style).pos(at_middle);
        root.draw(&Text::new(name, (x + 20, y + 7), style))?;
        x += width;
    }
    Ok(y + LEGEND_LINE + 4)
}

fn contenders(panels: &[Panel]) -> Vec<Contender> {
    let groups = panels.iter().flat_map(|panel| &panel.groups);
    let mut contenders: Vec<Contender> =
        groups.flat_map(|group| &group.values).map(|value| value.0).collect();
    contenders.sort();
    contenders.dedup();
    contenders
}

fn draw_panel(root: &Area<'_>, area: &Area<'_>, plot: &Plot, panel: &Panel, first: bool) -> Done {
    let panels = if plot.shared { &plot.panels[..] } else { std::slice::from_ref(panel) };
    let y_range = y_range(plot.marks, panels);
    let mut chart = ChartBuilder::on(area)
        .margin_top(TITLE_LINE)
        .margin_left(8)
        .margin_right(MARGIN)
        .margin_bottom(8)
        .x_label_area_size(46)
        .y_label_area_size(72)
        .build_cartesian_2d(x_range(plot.marks, panel), y_range.clone())?;
    if plot.marks != Marks::Bars {
        draw_fine_grid(&chart, y_range.clone())?;
    }
    let decades = (y_range.end - y_range.start).round() as usize;
    let logarithmic = plot.marks != Marks::Bars;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(if logarithmic { decades + 1 } else { 7 })
        .y_label_formatter(&|value| label(plot.marks, *value))
        .max_light_lines(0)
        .bold_line_style(GRID)
        .axis_style(PALE_INK)
        .y_label_style(font(12, &INK, FontStyle::Normal))
        .axis_desc_style(font(13, &INK, FontStyle::Normal))
        .x_desc(plot.x)
        .y_desc(if first { plot.y } else { "" })
        .draw()?;
    draw_title(root, &chart, panel)?;
    draw_group_labels(root, &chart, panel, y_range.start)?;
    match plot.marks {
        Marks::Lines => draw_lines(&chart, panel, y_range.start),
        marks => draw_groups(&chart, panel, marks, y_range.start),
    }
}

fn x_range(marks: Marks, panel: &Panel) -> Range<f64> {
    let last = panel.groups.last().map_or(0.0, |group| group.at);
    match marks {
        Marks::Lines => {
            let edge = (last * 0.04).max(1.0);
            -edge..last + edge
        }
        _ => -0.5..last + 0.5,
    }
}

/// From zero to a little above the highest, or full decades around all that can be shown.
fn y_range(marks: Marks, panels: &[Panel]) -> Range<f64> {
    let spreads = || {
        let groups = panels.iter().flat_map(|panel| &panel.groups);
        groups.flat_map(|group| &group.values).map(|value| value.1)
    };
    let highest = spreads().map(|spread| spread.high).fold(0.0, f64::max);
    if marks == Marks::Bars {
        return 0.0..if highest > 0.0 { highest * 1.06 } else { 1.0 };
    }
    let lows = spreads().map(|spread| spread.low).filter(|low| *low > 0.0);
    let lowest = lows.reduce(f64::min).unwrap_or(1.0);
    let start = lowest.log10().floor();
    start..highest.max(lowest).log10().ceil().max(start + 1.0)
}

/// Where a value stands; what is too small for a logarithm stands at the bottom.
fn place(marks: Marks, value: f64, bottom: f64) -> f64 {
    match marks {
        Marks::Bars => value,
        Marks::Points | Marks::Lines => value.log10().max(bottom),
    }
}

fn label(marks: Marks, value: f64) -> String {
    match marks {
        // The steps of the axis are sums, with what floating point leaves behind them.
        Marks::Bars => ((value * 1e6).round() / 1e6).to_string(),
        Marks::Points | Marks::Lines => 10_f64.powf(value.round()).to_string(),
    }
}

/// What shows at a glance that the scale is logarithmic.
fn draw_fine_grid(chart: &Chart<'_, '_>, y_range: Range<f64>) -> Done {
    let x_range = chart.x_range();
    for decade in y_range.start as i32..y_range.end as i32 {
        for tenth in 2..10 {
            let y = f64::from(decade) + f64::from(tenth).log10();
            let ends = vec![(x_range.start, y), (x_range.end, y)];
            chart.plotting_area().draw(&PathElement::new(ends, FINE_GRID))?;
        }
    }
    Ok(())
}

fn draw_title(root: &Area<'_>, chart: &Chart<'_, '_>, panel: &Panel) -> Done {
    let (x, y) = chart.plotting_area().get_pixel_range();
    let above = Pos::new(HPos::Center, VPos::Bottom);
    let style = font(14, &INK, FontStyle::Bold).pos(above);
    root.draw(&Text::new(&*panel.title, (x.start.midpoint(x.end), y.start - 4), style))
}

fn draw_group_labels(root: &Area<'_>, chart: &Chart<'_, '_>, panel: &Panel, bottom: f64) -> Done {
    for group in &panel.groups {
        let (x, y) = chart.backend_coord(&(group.at, bottom));
        let below = Pos::new(HPos::Center, VPos::Top);
        let style = font(12, &INK, FontStyle::Normal).pos(below);
        root.draw(&Text::new(&*group.label, (x, y + 8), style))?;
    }
    Ok(())
}

/// Bars or points of each group side by side, in the middle of the group's room.
fn draw_groups(chart: &Chart<'_, '_>, panel: &Panel, marks: Marks, bottom: f64) -> Done {
    let width = mark_width(chart, panel, marks);
    for Group { at, values, .. } in &panel.groups {
        let left = at - width * (values.len() - 1) as f64 / 2.0;
        for (number, (contender, spread)) in values.iter().enumerate() {
            let x = left + width * number as f64;
            draw_mark(chart, marks, (x, width), *contender, *spread, bottom)?;
        }
    }
    Ok(())
}

/// The same for all groups, in units of the x axis, where groups are 1 apart.
fn mark_width(chart: &Chart<'_, '_>, panel: &Panel, marks: Marks) -> f64 {
    let most = panel.groups.iter().map(|group| group.values.len()).max().unwrap_or(1);
    // Points need more air than bars to be seen as groups.
    let room = if marks == Marks::Bars { 0.84 } else { 0.6 };
    let (pixels, _) = chart.plotting_area().dim_in_pixel();
    let range = chart.x_range();
    let widest = WIDEST_BAR * (range.end - range.start) / f64::from(pixels.max(1));
    widest.min(room / most as f64)
}

fn draw_mark(
    chart: &Chart<'_, '_>,
    marks: Marks,
    (x, width): (f64, f64),
    contender: Contender,
    spread: Spread,
    bottom: f64,
) -> Done {
    let area = chart.plotting_area();
    let height = |value| place(marks, value, bottom);
    let (low, high) = (height(spread.low), height(spread.high));
    let centre = (x, height(spread.median));
    let stroke = |colour: RGBColor| ShapeStyle::from(colour).stroke_width(1);
    let cap = width * 0.2;
    if marks == Marks::Bars {
        let half = width * 0.46;
        let corners = [(x - half, bottom), (x + half, centre.1)];
        area.draw(&Rectangle::new(corners, colour(contender).filled()))?;
    }
    let whisker = if marks == Marks::Bars { INK } else { colour(contender) };
    for ends in [
        [(x, low), (x, high)],
        [(x - cap, low), (x + cap, low)],
        [(x - cap, high), (x + cap, high)],
    ] {
        area.draw(&PathElement::new(ends.to_vec(), stroke(whisker)))?;
    }
    if marks == Marks::Points {
        let radius = if contender == Contender::Ringgate { 6 } else { 5 };
        area.draw(&Circle::new(centre, radius, colour(contender).filled()))?;
    }
    Ok(())
}

/// ringgate last, over the others.
fn draw_lines(chart: &Chart<'_, '_>, panel: &Panel, bottom: f64) -> Done {
    for contender in contenders(std::slice::from_ref(panel)).into_iter().rev() {
        let height = |spread: Spread| place(Marks::Lines, spread.median, bottom);
        let points: Vec<(f64, f64)> = panel
            .groups
            .iter()
            .filter_map(|group| {
                let value = group.values.iter().find(|value| value.0 == contender)?;
                Some((group.at, height(value.1)))
            })
            .collect();
        let thick = if contender == Contender::Ringgate { 3 } else { 2 };
        let style = ShapeStyle::from(colour(contender)).stroke_width(thick);
        let area = chart.plotting_area();
        for point in &points {
            area.draw(&Circle::new(*point, thick + 2, style.filled()))?;
        }
        area.draw(&PathElement::new(points, style))?;
    }
    Ok(())
}
