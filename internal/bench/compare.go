// Two runs side by side.

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
)

// worse is by how much a ratio may be lower than before without being a regression:
// what two runs on one machine differ by.
const worse = 0.85

// compareFiles shows how the ratios of two runs differ, and is an error if one got
// worse. Times are not compared: they are of machines.
func compareFiles(to io.Writer, before, after string) error {
	was, err := readReport(before)
	if err != nil {
		return err
	}
	is, err := readReport(after)
	if err != nil {
		return err
	}
	return compareReports(to, was, is)
}

func compareReports(to io.Writer, was, is *report) error {
	old := map[string]series{}
	for _, row := range was.Rows {
		for _, s := range row.Series {
			old[row.Name+"\t"+s.Name] = s
		}
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WORK\tCONTENDER\tOLD\tNEW\tCHANGE\t")
	var errs []error
	for _, row := range is.Rows {
		for _, s := range row.Series[1:] {
			key := row.Name + "\t" + s.Name
			before, there := old[key]
			delete(old, key)
			if !there {
				fmt.Fprintf(w, "%s\t-\t%.2f\t-\t\n", key, s.Ratio)
				continue
			}
			change, verdict := s.Ratio/before.Ratio, ""
			// By the medians, and no round of now as good as the worst of then.
			if change < worse && s.High < before.Ratio {
				verdict = "regression"
				errs = append(errs, fmt.Errorf("%s against %s: %.2f times as fast, was %.2f", row.Name, s.Name, s.Ratio, before.Ratio))
			}
			fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%+.0f %%\t%s\n", key, before.Ratio, s.Ratio, (change-1)*100, verdict)
		}
	}
	grew := map[string]growth{}
	for _, g := range was.Growth {
		grew[g.Name] = g
	}
	for _, g := range is.Growth {
		before, there := grew[g.Name]
		if !there {
			continue
		}
		verdict := ""
		if g.Time > before.Time+flatExponent {
			verdict = "regression"
			errs = append(errs, fmt.Errorf("%s grows with exponent %.2f, was %.2f", g.Name, g.Time, before.Time))
		}
		fmt.Fprintf(w, "%s\tgrows with exponent\t%.2f\t%.2f\t\t%s\n", g.Name, before.Time, g.Time, verdict)
	}
	for key, s := range old {
		if s.Ratio != 0 {
			fmt.Fprintf(w, "%s\t%.2f\t-\t-\t\n", key, s.Ratio)
		}
	}
	return errors.Join(append(errs, w.Flush())...)
}

func readReport(path string) (*report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(report)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s is not what make bench writes: %w", path, err)
	}
	return r, nil
}
