package main

// template is a CloudFormation template, as far as tests look at it.
type template struct {
	Parameters map[string]map[string]any
	Resources  map[string]resource
	Outputs    map[string]map[string]any
}

type resource struct {
	Type                                string
	Properties                          map[string]any
	DependsOn                           any
	Metadata                            map[string]any
	UpdatePolicy, CreationPolicy        map[string]any
	DeletionPolicy, UpdateReplacePolicy string
}
