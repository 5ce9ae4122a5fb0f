// FAULTS.md says what comes of faults, and names the tests that show it.

package vmdisk

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// faults is how many rows the table has.
const faults = 73

var (
	faultRow  = regexp.MustCompile(`(?m)^\| (\d+) \| .* \| .* \| (.*) \|$`)
	namedTest = regexp.MustCompile("`(Test[^`]*)`")
	testFunc  = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	quoted    = regexp.MustCompile(`"([^"\n]*)"`)
)

// testsByName are the repository's tests, each with the text of its package's
// test files, where the names of its subtests are.
func testsByName(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{} // by directory
	must(t, filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		texts[filepath.Dir(path)] += string(text)
		return err
	}))
	tests := map[string]string{}
	for _, text := range texts {
		for _, m := range testFunc.FindAllStringSubmatch(text, -1) {
			tests[m[1]] += text
		}
	}
	return tests
}

// hasSubtest says whether a text names a subtest, as `go test` would.
func hasSubtest(text, subtest string) bool {
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		if strings.ReplaceAll(m[1], " ", "_") == subtest {
			return true
		}
	}
	return false
}

// Every fault has its row, and every row a test that there is, or says that it has
// none yet.
func TestFaultsTable(t *testing.T) {
	text, err := os.ReadFile("FAULTS.md")
	must(t, err)
	tests := testsByName(t)
	rows := faultRow.FindAllStringSubmatch(string(text), -1)
	if len(rows) != faults {
		t.Errorf("%d rows, not %d", len(rows), faults)
	}
	for i, row := range rows {
		if row[1] != strconv.Itoa(i+1) {
			t.Errorf("row %s comes after %d others", row[1], i)
		}
		if !namedTest.MatchString(row[2]) && row[2] != "not yet" {
			t.Errorf("row %s names no test", row[1])
		}
	}
	for _, m := range namedTest.FindAllStringSubmatch(string(text), -1) {
		test, subtest, _ := strings.Cut(m[1], "/")
		if strings.HasSuffix(subtest, "…") {
			continue // it stands for many
		}
		if tests[test] == "" {
			t.Errorf("there is no %s", test)
		} else if subtest != "" && !hasSubtest(tests[test], subtest) {
			t.Errorf("%s has no %q", test, subtest)
		}
	}
}
