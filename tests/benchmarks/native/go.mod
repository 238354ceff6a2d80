module native

go 1.22
