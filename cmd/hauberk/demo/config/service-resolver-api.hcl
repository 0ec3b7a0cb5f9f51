# Two versions of the api, told apart by their registration's meta.
Kind = "service-resolver"
Name = "api"
Subsets = {
  v1 = {
    Filter = "Service.Meta.version == v1"
  }
  v2 = {
    Filter = "Service.Meta.version == v2"
  }
}
