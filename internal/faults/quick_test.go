package faults

// quick are the scenarios that make test runs.
var quick = scenarios{
	"twins":                 testTwins,
	"max-deliveries":        testMaxDeliveries,
	"poison-command":        testPoisonCommand,
	"unread-large-command":  testUnreadLargeCommand,
	"poison-acks":           testPoisonAcks,
	"poison-messages":       testPoisonMessages,
	"oversized-ack":         testOversizedAck,
	"dead-link":             testDeadLink,
	"silent-but-alive":      testSilentButAlive,
	"disk-full":             testDiskFull,
	"frozen-controller":     testFrozenController,
	"no-token":              testNoToken,
	"open-commands-reasons": testOpenCommandsReasons,
	"held-streams":          testHeldStreams,
	"log-lines":             testLogLines,
	"disconnect-causes":     testDisconnectCauses,
	"migctl-warns":          testMigctlWarns,
	"killed-controller":     testKilledController,
	"failing-registrations": testFailingRegistrations,
	"clock-1970":            testClock1970,
	"second-controller":     testSecondController,
	"removed-database":      testRemovedDatabase,
	"lost-database":         testLostDatabase,
	"log-reader-stalled":    testLogReaderStalled,
}
