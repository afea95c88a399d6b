//go:build faults

package faults

import "maps"

// long contains the scenarios that take longer or need additional programs.
var long = func() scenarios {
	all := scenarios{
		"reports-over-http": testReportsOverHTTP,
		"silent-agent":      testSilentAgent,
		"kinds-of-agents":   testKindsOfAgents,
		"silent-restart":    testSilentRestart,
		"silent-watch":      testSilentWatch,
		"unfinished-bodies": testUnfinishedBodies,
		"unread-watch":      testUnreadWatch,
		"blocked-reader":    testBlockedReader,
	}
	maps.Copy(all, proxyScenarios())
	return all
}()
