module growth

go 1.22
