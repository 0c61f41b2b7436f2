"""As much of CloudFormation as the templates beside AWS Panorama's sample applications need: roles and alarms."""
