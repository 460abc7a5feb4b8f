module web

go 1.21

require (
	golang.org/x/net v0.34.0
	golang.org/x/sync v0.10.0
)

require golang.org/x/text v0.21.0 // indirect
