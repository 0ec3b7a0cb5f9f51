# One request in ten goes to the new version.
Kind = "service-splitter"
Name = "api"
Splits = [
  {
    Weight        = {{.V1}}
    ServiceSubset = "v1"
  },
  {
    Weight        = {{.V2}}
    ServiceSubset = "v2"
  },
]
