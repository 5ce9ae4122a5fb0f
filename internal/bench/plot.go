// The plots, as SVG.

package main

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

var (
	blue  = color.RGBA{0x2b, 0x6c, 0xb0, 0xff}
	grey  = color.RGBA{0x80, 0x80, 0x80, 0xff}
	lines = []color.Color{blue, color.RGBA{0xc0, 0x56, 0x21, 0xff}, color.RGBA{0x2f, 0x85, 0x5a, 0xff},
		color.RGBA{0x6b, 0x46, 0xc1, 0xff}, color.RGBA{0xb8, 0x32, 0x80, 0xff}, grey}
)

// newPlot is an empty one. Who shows an SVG takes a font of its own, which may be wider
// than was reckoned: this one is as wide as Arial, and there is some room beside.
func newPlot() *plot.Plot {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Y.Tick.Label.Font.Size = vg.Points(9)
	p.Y.Padding = vg.Points(24)
	return p
}

// plotRatios has a line a contender, from the lowest to the highest ratio, and a dot
// where the medians' is.
func (r *report) plotRatios(path string) error {
	p := newPlot()
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.X.Label.Text = "vmdisk is so many times as fast"
	var names []string
	var dots plotter.XYs
	for i := len(r.Rows) - 1; i >= 0; i-- {
		row := r.Rows[i]
		for k := len(row.Series) - 1; k > 0; k-- {
			s, y := row.Series[k], float64(len(names))
			names = append(names, row.Name+": "+s.Name)
			dots = append(dots, plotter.XY{X: s.Ratio, Y: y})
			spread, err := plotter.NewLine(plotter.XYs{{X: s.Low, Y: y}, {X: s.High, Y: y}})
			if err != nil {
				return err
			}
			spread.Color, spread.Width = grey, vg.Points(3)
			p.Add(spread)
		}
	}
	if len(names) == 0 {
		return nil
	}
	one, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(names)) - 0.5}})
	if err != nil {
		return err
	}
	one.Dashes = []vg.Length{vg.Points(3), vg.Points(3)}
	scatter, err := plotter.NewScatter(dots)
	if err != nil {
		return err
	}
	scatter.Color, scatter.Radius, scatter.Shape = blue, vg.Points(4), draw.CircleGlyph{}
	p.Add(one, scatter)
	p.NominalY(names...)
	return p.Save(22*vg.Centimeter, vg.Length(len(names))*0.7*vg.Centimeter+2*vg.Centimeter, path)
}

// plotGrowth has a line a command.
func (r *report) plotGrowth(path string) error {
	if len(r.Growth) == 0 {
		return nil
	}
	p := newPlot()
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.X.Label.Text, p.Y.Label.Text = "disks in the pool", "seconds"
	p.Legend.Top, p.Legend.Left = true, true
	least, most := math.Inf(1), 0.0
	for i, g := range r.Growth {
		var at plotter.XYs
		for k, n := range g.Disks {
			at = append(at, plotter.XY{X: float64(n), Y: g.Seconds[k]})
			least, most = min(least, g.Seconds[k]), max(most, g.Seconds[k])
		}
		line, points, err := plotter.NewLinePoints(at)
		if err != nil {
			return err
		}
		line.Color, points.Color = lines[i%len(lines)], lines[i%len(lines)]
		p.Add(line, points)
		p.Legend.Add(fmt.Sprintf("%s, exponent %.2f", g.Name, g.Time), line, points)
	}
	p.Y.Min, p.Y.Max = least/2, most*10 // with room for the legend
	return p.Save(18*vg.Centimeter, 12*vg.Centimeter, path)
}
